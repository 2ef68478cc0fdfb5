"""What is diagnosed: linear regression, whose minimum has a closed form."""

from __future__ import annotations

import torch
from scipy.stats import spearmanr

import tlxml_fast as tlx

DELTA = 0.1


def line(seed: int) -> tlx.Task:
    """Noisy linear regression in three features."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 3, generator=g, dtype=torch.float64)
    y = x @ torch.randn(3, generator=g, dtype=torch.float64) + 0.3 * torch.randn(24, generator=g).double()
    return tlx.Task(x[:8], y[:8], x[8:], y[8:], name=f"line {seed}")


LINES, TESTS = [line(i) for i in range(12)], [line(100 + i) for i in range(3)]


def linear(steps: int = 2) -> tlx.Learner:
    """A linear model after affine inner steps: L is quadratic in ω, and G = H."""
    return tlx.MAML(torch.nn.Linear(3, 1).double(), inner_lr=0.1, inner_steps=steps, loss="mse")


def at_the_minimum(learner: tlx.Learner) -> tlx.Learner:
    """One Newton step with the package's own derivatives, which is exact for a quadratic."""
    lin = tlx.linearize(learner, LINES)
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64)) + DELTA * torch.eye(lin.q, dtype=torch.float64)
    omega = lin.omega - torch.linalg.solve(H, lin.gradients().mean(0) + DELTA * lin.omega)
    torch.nn.utils.vector_to_parameters(omega, learner.module.parameters())
    return learner


def fitted(learner: tlx.Learner, tasks=LINES, curvature=None, inverse=None, **more) -> tlx.TaskInfluence:
    return tlx.TaskInfluence(learner, curvature, inverse, weight_decay=DELTA, **more).fit(tasks)


def spearman(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Of every test task, by scipy."""
    return [spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
