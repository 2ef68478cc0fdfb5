"""Every intervention on every target, chosen by every score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...learners import Learner
from ...progress import progress_bar
from ...retraining import Objective, minimise, train_to_minimum, whitening
from ...task import Task, TaskSet
from ..base import Setup
from ..ground_truth.scoring import scorings
from ..ground_truth.subject import TOLERANCE, WEIGHT_DECAY, Size, size_of, tasks_of

CHOSEN_BY = ("Gauss-Newton", "Hessian", "gradient cosine", "embedding similarity", "random")
# Of fine-tuning: neither is tuned.
STEPS, RATE = 10, 0.05
MAX_EVALUATIONS = 3000


@dataclass(frozen=True)
class Plan:
    """Test tasks, how many of them are to be repaired, and how many training tasks an intervention concerns."""

    test: int
    targets: int
    k: int


FULL, QUICK = Plan(64, 16, 8), Plan(12, 3, 3)


def repaired(setup: Setup, seed: int, build: Callable[[Size, int], Learner]) -> dict[str, Any]:
    """The targets before, and after each intervention what changed for them and for the other test tasks."""
    size, plan = size_of(setup), QUICK if setup.quick else FULL
    train, test = tasks_of(setup, seed, size.train, plan.test)
    learner = build(size, seed)
    objective, minimum = train_to_minimum(learner, train, WEIGHT_DECAY, TOLERANCE)
    trained = _Trained(learner, objective, minimum.omega, plan.k)
    judge = _Judge(learner, test, minimum.omega)
    targets = np.argsort(-judge.seen.before.losses, kind="stable")[: plan.targets].tolist()
    scores = {
        way.name: way.score(learner, train, judge.seen.tasks)
        for way in scorings(size.rank, seed)
        if way.name in CHOSEN_BY
    }
    outcomes = []
    total = len(targets) * len(scores) * len(INTERVENTIONS)
    with progress_bar(f"repair {learner.kind}", total, setup.progress) as advance:
        for target in targets:
            for name, values in scores.items():
                helpful, harmful = ends(values[target], plan.k)
                for intervention, act in INTERVENTIONS.items():
                    omega = act(trained, helpful, harmful)
                    outcomes.append(
                        {
                            "target": target,
                            "chosen by": name,
                            "intervention": intervention,
                            "moved": float((omega - minimum.omega).norm() / minimum.omega.norm()),
                            **judge(target, omega),
                        }
                    )
                    advance()
    return {
        "train": size.train,
        "k": plan.k,
        "gradient_norm": minimum.gradient_norm,
        "train_accuracy": float(objective.accuracies(minimum.omega).mean()),
        "test": {
            "seen_losses": judge.seen.before.losses.tolist(),
            "fresh_losses": judge.fresh.before.losses.tolist(),
            "seen_accuracies": judge.seen.before.hits.mean(1).tolist(),
            "fresh_accuracies": judge.fresh.before.hits.mean(1).tolist(),
        },
        "targets": targets,
        "outcomes": outcomes,
    }


def ends(scores: np.ndarray, k: int) -> tuple[list[int], list[int]]:
    """The k most helpful training tasks, those of the lowest scores, and the k most harmful ones."""
    order = np.argsort(scores, kind="stable").tolist()
    return order[:k], order[::-1][:k]


# ---- interventions --------------------------------------------------------------------------------------


class _Trained:
    """A learner at its minimum, to be retrained or fine-tuned from there."""

    def __init__(self, learner: Learner, objective: Objective, omega: Tensor, k: int):
        self.objective, self.omega, self.k = objective, omega, k
        self.losses_only = Objective(learner, objective.buckets.tasks)
        H = objective.hvp(omega, torch.eye(objective.q, dtype=torch.float64))
        self.scaling = whitening((H + H.mT) / 2)

    def reweighted(self, tasks: list[int], factor: float) -> Tensor:
        """The minimum with the weight of some tasks changed, from where it was."""
        weights = self.objective.weights.clone()
        weights[tasks] *= factor
        changed = self.objective.reweighted(weights)
        return minimise(
            changed,
            self.omega,
            TOLERANCE,
            scaling=self.scaling,
            max_evaluations=MAX_EVALUATIONS,
            strict=False,
        ).omega

    def tuned(self, towards: list[int], away: list[int]) -> Tensor:
        """After a few gradient steps on the mean loss of some tasks, less that of others."""
        weights = torch.zeros_like(self.objective.weights)
        weights[towards] += 1 / self.k
        weights[away] -= 1 / self.k
        tuning, omega = self.losses_only.reweighted(weights), self.omega
        for _ in range(STEPS):
            omega = omega - RATE * tuning.value_and_gradient(omega)[1]
        return omega


INTERVENTIONS: dict[str, Callable[[_Trained, list[int], list[int]], Tensor]] = {
    "harmful removed": lambda trained, helpful, harmful: trained.reweighted(harmful, 0.0),
    "harmful at half weight": lambda trained, helpful, harmful: trained.reweighted(harmful, 0.5),
    "tuned on helpful": lambda trained, helpful, harmful: trained.tuned(helpful, []),
    "tuned on helpful, off harmful": lambda trained, helpful, harmful: trained.tuned(helpful, harmful),
}


# ---- judgement ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    """Losses [T] and hits [T, n] of some tasks."""

    losses: np.ndarray
    hits: np.ndarray


class _Half:
    """All test tasks with one half of their queries."""

    def __init__(self, learner: Learner, tasks: TaskSet, omega: Tensor):
        self.tasks = tasks
        self.objective = Objective(learner.at_evaluation(), tasks)
        self.before = self.at(omega)

    def at(self, omega: Tensor) -> _State:
        (lin,) = self.objective.linearizations(omega)
        return _State(lin.losses().numpy(), (lin.logits.argmax(-1) == lin.targets).numpy().astype(float))


class _Judge:
    """What an intervention changed for its target, by seen and by fresh queries, and for all others."""

    def __init__(self, learner: Learner, test: TaskSet, omega: Tensor):
        halves = zip(*(split(task) for task in test), strict=True)
        self.seen, self.fresh = (_Half(learner, TaskSet(half), omega) for half in halves)

    def __call__(self, target: int, omega: Tensor) -> dict[str, float]:
        found: dict[str, float] = {"others_loss": 0.0, "others_accuracy": 0.0}
        for name, half in (("seen", self.seen), ("fresh", self.fresh)):
            before, after = half.before, half.at(omega)
            losses, hits = after.losses - before.losses, after.hits - before.hits
            others = np.arange(len(losses)) != target
            found[f"{name}_loss"] = float(losses[target])
            found[f"{name}_corrected"] = int((hits[target] > 0).sum())
            found[f"{name}_broken"] = int((hits[target] < 0).sum())
            found[f"{name}_errors"] = int((before.hits[target] == 0).sum())
            found["others_loss"] += float(losses[others].mean()) / 2
            found["others_accuracy"] += float(hits[others].mean()) / 2
        return found


def split(task: Task) -> tuple[Task, Task]:
    """The task with every other query, and with those between: both halves of every class."""
    return tuple(
        task.replace(query_x=task.query_x[i::2], query_y=task.query_y[i::2], name=f"{task.name} {half}")
        for i, half in enumerate(("seen", "fresh"))
    )
