"""I_adpt is how the adapted parameters move along I_meta, and the loss moves with them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from oracle import near, problem

import tlxml_fast as tlx
from tlxml_fast.learners import Episode
from tlxml_fast.linearize import FlatParameters

NAMES = [
    "maml, 1 step", "maml, 5 steps", "maml, learned rates", "maml, other steps at evaluation", "maml, regression",
    "anil, head", "anil, prefix", "anil, learned rates", "maml conv4, 1 step", "maml conv4, running",
    "proto", "proto, cosine, scaled", "proto, apart", "proto conv4",
]  # fmt: skip


class Moved:
    """θ of a test task as a function of ω, through the learner's public methods."""

    def __init__(self, name: str):
        p = problem(name)
        self.inf = p.fit(inverse=tlx.Dense(0.0625))
        self.task = p.test[0]
        self.learner = self.inf.learner.at_evaluation()
        self.flat = FlatParameters(self.learner.parameters())
        self.omega = self.flat.flatten(self.learner.parameters()).detach()
        self.episode = Episode.of(self.task, torch.float64, torch.device("cpu"))
        self.direction = self.inf.meta(1)

    def theta(self, omega: torch.Tensor) -> dict[str, torch.Tensor]:
        theta = self.learner.adapt(self.flat.unflatten(omega), self.episode, self.task.ways)
        return {name: value.detach() for name, value in theta.items()}

    def loss(self, theta: dict[str, torch.Tensor]) -> torch.Tensor:
        y = self.task.query_y.double() if self.task.regression else self.task.query_y
        return self.learner.loss(self.learner.predict(theta, self.episode, self.task.ways), y)


@cache
def moved(name: str) -> Moved:
    """Fitted once for all tests."""
    return Moved(name)


@pytest.mark.parametrize("name", NAMES)
def test_finite_differences(name):
    """A step of 1e-5 in ω: truncation is about 1e-10 of θ‴ and rounding 1e-16/1e-5, so that 1e-7 leaves room for θ‴."""
    at = moved(name)
    step = 1e-5 / at.direction.norm()
    ends = [at.theta(at.omega + sign * step * at.direction) for sign in (1, -1)]
    flat = FlatParameters(ends[0])
    difference = (flat.flatten(ends[0]) - flat.flatten(ends[1])) / (2 * step)
    near(at.inf.adaptation(at.task, 1), difference, 1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_chain_rule_of_the_loss(name):
    """I_perf = ∇_θL · I_adpt = ∇_ωL · I_meta."""
    at = moved(name)
    theta = {k: v.requires_grad_() for k, v in at.theta(at.omega).items()}
    slopes = dict(zip(theta, torch.autograd.grad(at.loss(theta), list(theta.values())), strict=True))
    through_theta = FlatParameters(theta).flatten(slopes) @ at.inf.adaptation(at.task, 1)
    lin = tlx.linearize(at.learner, [at.task])
    through_omega = lin.gradients()[0] @ at.direction
    score = at.inf.scores([at.task]).values[0, 1]
    scale = lin.gradients()[0].norm() * at.direction.norm()  # the product may cancel
    assert (through_theta - score).abs() <= 1e-11 * scale
    assert (through_omega - score).abs() <= 1e-11 * scale


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("anil, head", slice(0, 24)),
        ("anil, learned rates", slice(0, 24)),
        ("anil, prefix", slice(24, 36)),
        ("proto", slice(0, 39)),
    ],
)
def test_frozen_parameters_move_with_omega(name, frozen):
    at = moved(name)
    assert torch.equal(at.inf.adaptation(at.task, 1)[frozen], at.direction[frozen])


def test_prototypes_come_last():
    at = moved("proto, cosine, scaled")
    theta = at.theta(at.omega)
    assert list(theta)[-1] == "prototypes"
    assert theta["prototypes"].shape == (at.task.ways, 3)
    assert at.inf.adaptation(at.task, 1).shape == (len(at.omega) + at.task.ways * 3,)
