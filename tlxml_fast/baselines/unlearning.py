"""Unlearning a training task, and seeing what that does to the test tasks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from ..errors import LearnerError
from ..learners import Learner
from ..linearize import linearize
from ..linearize.buckets import Buckets
from ..progress import progress_bar
from ..scores import Scores
from ..task import Task, TaskSet
from .base import begun


def ascent(
    learner: Learner,
    train_tasks: TaskSet | Iterable[Task],
    test_tasks: TaskSet | Iterable[Task],
    lr: float = 1e-2,
    steps: int = 5,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Scores:
    """−(L_i(ω_j) − L_i(ω)) / (lr·steps), with ω_j after `steps` of gradient ascent ω ← ω + lr ∇L_j(ω) on task j.

    What helped i is missed once it is unlearnt: L_i rises, and the score is negative. For lr → 0 it is −⟨∇L_i, ∇L_j⟩,
    the score of Identity(). Takes `steps` gradients and n_test forward passes, adaptation included, for every
    training task. (Gradient ascent as unlearning: Jang et al., ACL 2023; single steps along training: TracIn, Pruthi
    et al., NeurIPS 2020.)

    Raises TaskError where ascent runs into numbers that are not finite: take a smaller lr.
    """
    if not 0 < lr < float("inf"):
        raise LearnerError(f"lr is positive and finite, not {lr}")
    if not isinstance(steps, int) or steps < 1:
        raise LearnerError(f"steps is a whole number of at least 1, not {steps!r}")
    baseline = begun("ascent", learner, train_tasks, test_tasks, lr=lr, steps=steps)
    at = partial(linearize, backend=backend, dtype=dtype)
    tests = Buckets(learner.at_evaluation(), baseline.test, at)
    before = _losses(tests, tests.linearizations[0].omega)
    columns = []
    with progress_bar("gradient ascent", len(baseline.train), progress) as advance:
        for task in baseline.train:
            lin = at(learner, TaskSet([task]))
            omega = lin.omega
            for _ in range(steps):
                omega = omega + lr * lin.at(omega).gradients()[0]
            columns.append((before - _losses(tests, omega)) / (lr * steps))
            advance()
    return baseline.scores(torch.stack(columns, 1))


def _losses(tests: Buckets, omega: Tensor) -> Tensor:
    """L_i at other meta-parameters, [n_test], float64."""
    losses = omega.new_empty(len(tests), dtype=torch.float64)
    for where, lin in zip(tests.positions, tests.linearizations, strict=True):
        losses[where] = lin.at(omega).losses().double()
    return losses
