"""Tasks of any shapes, linearized shape by shape and put back in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..errors import TaskError
from ..learners import Learner
from ..task import TaskSet
from .base import Linearization


class Buckets:
    """M tasks as linearizations of one shape each; `gather` gives results in the order of the tasks.

    Everything is checked when it is made, before any long work: that every shape runs through the model.
    """

    def __init__(
        self, learner: Learner, tasks: TaskSet, linearize: Callable[[Learner, TaskSet], Linearization]
    ):
        tasks = TaskSet(tasks)
        if len(tasks) == 0:
            raise TaskError("there are no tasks")
        self.tasks = tasks
        positions: dict[tuple, list[int]] = {}
        for i, task in enumerate(tasks):
            positions.setdefault(task.shape, []).append(i)
        self.positions = list(positions.values())
        self.linearizations = [linearize(learner, tasks[where]) for where in self.positions]

    def __len__(self) -> int:
        return len(self.tasks)

    def gather(
        self,
        quantity: Callable[[Linearization, slice], Tensor],
        advance: Callable[[int], None],
        one_vector: bool = False,
    ) -> list[Tensor]:
        """The rows of `quantity(linearization, block)`, one a task, in the order of the tasks.

        `advance` hears of the tasks done; `one_vector` says that a task's work is a single vector's.
        """
        results: list[Tensor | None] = [None] * len(self)
        for where, lin in zip(self.positions, self.linearizations, strict=True):
            with lin.task_threads() as each:
                blocks = lin.gradient_blocks if one_vector else lin.blocks
                for block, rows in zip(blocks, each(partial(quantity, lin), blocks), strict=True):
                    for i, row in zip(where[block], rows, strict=True):
                        results[i] = row
                    advance(len(rows))
        return results  # type: ignore[return-value]

    def require_finite(self, what: str, values: Tensor) -> None:
        """Raise TaskError naming the first task whose row of `values` is not finite."""
        finite = torch.isfinite(values).flatten(1).all(1)
        if not finite.all():
            i = int((~finite).nonzero()[0])
            raise TaskError(f"the {what} of task {self.tasks[i].label!r} is not finite")
