"""Finding tasks whose query labels are noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...progress import progress_bar
from ...retraining import Objective, train_to_minimum
from ...task import TaskSet
from ..base import Setup
from .removal import compact
from .scoring import scorings
from .subject import LEARNERS, TOLERANCE, WEIGHT_DECAY, size_of, tasks_of

SHARE = 0.1


def corrupted_and_found(setup: Setup, seed: int) -> dict[str, Any]:
    """For each learner which training tasks were corrupted, and what every scoring says of them.

    own   a task's score of itself, [M], of the scorings for which that means something
    mean  its mean score over the test tasks, [M], which are clean
    """
    size = size_of(setup)
    clean, test = tasks_of(setup, seed, size.train, size.test)
    train, corrupted = corrupt(clean, seed)
    found: dict[str, Any] = {"corrupted": corrupted.tolist(), "learners": {}}
    ways = scorings(size.rank, seed)
    with progress_bar("ground truth: corrupted tasks", len(LEARNERS) * len(ways), setup.progress) as advance:
        for name, build in LEARNERS.items():
            learner = build(size, seed)
            objective, minimum = train_to_minimum(learner, train, WEIGHT_DECAY, TOLERANCE)
            own, mean = {}, {}
            for way in ways:
                scores = way.score(learner, train, TaskSet([*test, *train]))
                mean[way.name] = compact(scores[: len(test)].mean(0))
                if way.own:
                    own[way.name] = compact(scores[len(test) :].diagonal())
                advance(1, f"{name}, {way.name}")
            found["learners"][name] = {
                "own": own,
                "mean": mean,
                "train_accuracy": float(objective.accuracies(minimum.omega).mean()),
                "test_accuracy": float(Objective(learner, test).accuracies(minimum.omega).mean()),
                "gradient_norm": minimum.gradient_norm,
            }
    return found


def corrupt(tasks: TaskSet, seed: int) -> tuple[TaskSet, np.ndarray]:
    """The tasks with the query labels of a tenth of them drawn at random, and which these are [M].

    Independently of the support set: labels permuted consistently in both are just another naming of the classes, which
    changes nothing at all for a ProtoNet.
    """
    rng = np.random.default_rng([seed, len(tasks)])
    corrupted = np.zeros(len(tasks), bool)
    corrupted[rng.permutation(len(tasks))[: max(1, round(SHARE * len(tasks)))]] = True
    changed = [
        task.replace(query_y=torch.from_numpy(rng.integers(task.ways, size=len(task.query_x))))
        if wrong
        else task
        for task, wrong in zip(tasks, corrupted, strict=True)
    ]
    return TaskSet(changed, tasks.name), corrupted
