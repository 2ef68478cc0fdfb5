"""Training without some of the tasks: what it does to the test tasks, and what was predicted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...progress import progress_bar
from ...retraining import (
    Minimum,
    Objective,
    bregman_responses,
    retrain_without,
    train_to_minimum,
    whitening,
)
from ..base import Setup
from .scoring import DAMPING, scorings
from .subject import TOLERANCE, WEIGHT_DECAY, Removals, maml, size_of, tasks_of
from .timing import seconds_of_an_evaluation

DIGITS = 7
MAX_EVALUATIONS = 3000


def removed_and_retrained(setup: Setup, seed: int) -> dict[str, Any]:
    """The minimum, every scoring's scores at it, and for each group removed the changes of the test tasks' losses."""
    size = size_of(setup)
    train, test = tasks_of(setup, seed, size.train, size.test)
    learner = maml(size, seed)
    initial = Objective(learner, train).start
    begun = time.perf_counter()
    objective, minimum = train_to_minimum(learner, train, WEIGHT_DECAY, TOLERANCE)
    seconds = time.perf_counter() - begun
    tests = Objective(learner.at_evaluation(), test)
    identity = torch.eye(objective.q, dtype=torch.float64)
    H, G = (product(minimum.omega, identity) for product in (objective.hvp, objective.gnvp))
    H, G = ((A + A.mT) / 2 for A in (H, G))
    eigenvalues = torch.linalg.eigvalsh(H)
    found = {
        "train": size.train,
        "test": size.test,
        "parameters": objective.q,
        "weight_decay": WEIGHT_DECAY,
        "damping": DAMPING,
        "gradient_norm": minimum.gradient_norm,
        "evaluations": minimum.evaluations,
        "seconds": seconds,
        "evaluation_seconds": seconds_of_an_evaluation(learner, objective, minimum.omega),
        "smallest_eigenvalue": float(eigenvalues[0]),
        "largest_eigenvalue": float(eigenvalues[-1]),
        **_fit(objective, tests, minimum.omega),
        "omega": minimum.omega.tolist(),  # in full: all that follows can be computed again from it
        "scores": {},
    }
    ways = scorings(size.rank, seed)
    with progress_bar("ground truth: scores", len(ways), setup.progress) as advance:
        for way in ways:
            found["scores"][way.name] = compact(way.score(learner, train, test))
            advance(1, way.name)
    retrainer = _Retrainer(
        objective,
        tests,
        minimum.omega,
        initial,
        whitening(H),
        whitening(G + DAMPING * identity),
        setup.progress,
    )
    found["changes"] = [way.name for way in ways if way.change]
    found["removals"] = [retrainer(removals, seed) for removals in size.removals]
    return found


class _Retrainer:
    """Retrains without groups of tasks in three ways: warm, from scratch, and by the proximal Bregman response."""

    def __init__(
        self,
        objective: Objective,
        tests: Objective,
        omega: Tensor,
        initial: Tensor,
        by_hessian: Tensor,
        by_gauss_newton: Tensor,
        progress: bool,
    ):
        self.objective, self.tests, self.omega, self.initial = objective, tests, omega, initial
        self.by_hessian, self.by_gauss_newton = by_hessian, by_gauss_newton
        self.settings = {
            "tol": TOLERANCE,
            "progress": progress,
            "strict": False,
            "max_evaluations": MAX_EVALUATIONS,
        }
        self.losses = tests.losses(omega)

    def __call__(self, removals: Removals, seed: int) -> dict[str, Any]:
        groups = draw(removals, len(self.objective), seed)
        truths = {
            "warm": retrain_without(
                self.objective, groups, self.omega, scaling=self.by_hessian, **self.settings
            ),
            "scratch": retrain_without(
                self.objective, groups[: removals.scratch], self.initial, **self.settings
            ),
            "bregman": bregman_responses(
                self.objective,
                groups[: removals.bregman],
                self.omega,
                DAMPING,
                scaling=self.by_gauss_newton,
                **self.settings,
            ),
        }
        return {
            "k": removals.k,
            "groups": groups,
            "truths": {name: self._described(minima) for name, minima in truths.items()},
        }

    def _described(self, minima: Sequence[Minimum]) -> dict[str, Any]:
        changes = torch.stack([self.tests.losses(m.omega) - self.losses for m in minima])
        return {
            "changes": compact(changes.numpy()),
            "distances": [float((m.omega - self.omega).norm() / self.omega.norm()) for m in minima],
            "values": [m.value for m in minima],
            "gradient_norms": [m.gradient_norm for m in minima],
            "evaluations": [m.evaluations for m in minima],
            "converged": [m.converged for m in minima],
        }


def draw(removals: Removals, tasks: int, seed: int) -> list[list[int]]:
    """Groups of k tasks: of single tasks each once, in random order, else at random."""
    rng = np.random.default_rng([seed, removals.k])
    if removals.k == 1:
        return [[int(i)] for i in rng.permutation(tasks)[: removals.groups]]
    return [sorted(rng.permutation(tasks)[: removals.k].tolist()) for _ in range(removals.groups)]


def _fit(objective: Objective, tests: Objective, omega: Tensor) -> dict[str, float]:
    return {
        "train_accuracy": float(objective.accuracies(omega).mean()),
        "test_accuracy": float(tests.accuracies(omega).mean()),
        "train_loss": float(objective.losses(omega).mean()),
        "test_loss": float(tests.losses(omega).mean()),
    }


def compact(values: np.ndarray) -> list:
    """Nested lists of as many digits as ranks and slopes can tell apart."""
    return [compact(v) for v in values] if values.ndim else float(f"{values:.{DIGITS}g}")
