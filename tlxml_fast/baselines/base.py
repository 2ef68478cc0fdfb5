"""What the baselines share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import TaskError
from ..learners import Learner
from ..scores import Scores, TaskAxis
from ..task import Task, TaskSet


@dataclass
class Baseline:
    """A baseline at work: its tasks, each made once, and the scores that come of them."""

    name: str
    learner: Learner
    train: TaskSet
    test: TaskSet
    settings: dict[str, Any]
    start: float = field(default_factory=time.perf_counter)

    def scores(self, values: Tensor) -> Scores:
        """Of `values` [n_test, n_train]. Raises TaskError, naming the pair, where one is not finite."""
        train, test = TaskAxis.of(self.train), TaskAxis.of(self.test)
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            i, j = bad[0].tolist()
            raise TaskError(
                f"{self.name} of training task {train.names[j]!r} and test task {test.names[i]!r} is not finite"
            )
        info = {
            "learner": self.learner.describe(),
            "curvature": {"curvature": "none", "baseline": self.name, **self.settings},
            "notes": ["a baseline: its numbers rank training tasks and are no influence"],
            "seconds": {"scores": time.perf_counter() - self.start},
        }
        in_fit = torch.ones(len(train), dtype=torch.bool)
        return Scores(values.double().cpu(), test, train, in_fit, info=info)


def begun(
    name: str,
    learner: Learner,
    train: TaskSet | Iterable[Task],
    test: TaskSet | Iterable[Task],
    **settings: Any,
) -> Baseline:
    """Raises TaskError where there are no tasks."""
    train, test = TaskSet(train), TaskSet(test)
    for what, tasks in (("training", train), ("test", test)):
        if len(tasks) == 0:
            raise TaskError(f"there are no {what} tasks")
    return Baseline(name, learner, train, test, settings)
