"""Changes made to whole tasks, for experiments on what influence can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from ..errors import DataError
from ..task import Task, TaskSet

Tasks = TypeVar("Tasks", Task, TaskSet)


def noise(tasks: Tasks, seed: int = 0, group: str | None = None) -> Tasks:
    """Each image replaced by independent uniform noise between the least and the greatest pixel of its task.

    The noise depends on (seed, task.id) alone. Labels stay, and the group too unless `group` is given.
    Takes a Task or a TaskSet and returns the same kind, a TaskSet lazily. Raises DataError if seed < 0.
    """
    if seed < 0:
        raise DataError(f"noise: seed is {seed}; it must not be negative")

    def change(task: Task) -> Task:
        rng = np.random.default_rng([seed, int(task.id, 16)])
        low = min(float(task.support_x.min()), float(task.query_x.min()))
        high = max(float(task.support_x.max()), float(task.query_x.max()))

        def like(x: torch.Tensor) -> torch.Tensor:
            drawn = torch.from_numpy(rng.uniform(low, high, tuple(x.shape)))
            return drawn.to(x).clamp(low, high)  # rounding to a shorter dtype may leave the range

        return task.replace(
            support_x=like(task.support_x),
            query_x=like(task.query_x),
            name=f"{task.label}-noise",
            group=task.group if group is None else group,
        )

    return _apply(change, tasks, "noise")


def darken(tasks: Tasks, alpha: float) -> Tasks:
    """Every image x, support and query, replaced by (1 − alpha)·x: 0 changes nothing, 1 leaves black.

    Takes a Task or a TaskSet and returns the same kind, a TaskSet lazily. Raises DataError unless
    0 ≤ alpha ≤ 1.
    """
    if not 0 <= alpha <= 1:
        raise DataError(f"darken: alpha is {alpha}; it must lie between 0 and 1")
    suffix = f"dark{alpha:g}"

    def change(task: Task) -> Task:
        return task.replace(
            support_x=(1 - alpha) * task.support_x,
            query_x=(1 - alpha) * task.query_x,
            name=f"{task.label}-{suffix}",
        )

    return _apply(change, tasks, suffix)


def rotate(tasks: Tasks, quarters: int) -> Tasks:
    """Every image [C, H, W] turned by so many quarters of a circle, counter-clockwise; squares keep their shape.

    Takes a Task or a TaskSet and returns the same kind, a TaskSet lazily.
    """
    suffix = f"rot{90 * (quarters % 4)}"

    def change(task: Task) -> Task:
        if task.support_x.ndim < 3:
            raise DataError(f"rotate: task {task.label!r} has no images to turn")
        return task.replace(
            support_x=torch.rot90(task.support_x, quarters, (-2, -1)).contiguous(),
            query_x=torch.rot90(task.query_x, quarters, (-2, -1)).contiguous(),
            name=f"{task.label}-{suffix}",
        )

    return _apply(change, tasks, suffix)


def permute_classes(tasks: Tasks, seed: int = 0) -> Tasks:
    """The labels renamed by a random permutation of the ways, the same for support and query, from (seed, task.id).

    A ProtoNet computes the same loss with it; MAML's classifier does not. Takes a Task or a TaskSet and returns the
    same kind, a TaskSet lazily. Raises DataError if seed < 0, or for a regression task.
    """
    if seed < 0:
        raise DataError(f"permute_classes: seed is {seed}; it must not be negative")

    def change(task: Task) -> Task:
        if task.regression:
            raise DataError(f"permute_classes: task {task.label!r} has no classes")
        renamed = torch.from_numpy(np.random.default_rng([seed, int(task.id, 16)]).permutation(task.ways))
        return task.replace(
            support_y=renamed[task.support_y],
            query_y=None if task.query_y is None else renamed[task.query_y],
            name=f"{task.label}-permuted",
        )

    return _apply(change, tasks, "permuted")


def _apply(change: Callable[[Task], Task], tasks: Tasks, suffix: str) -> Tasks:
    if isinstance(tasks, TaskSet):
        return tasks.map(change, f"{tasks.name}-{suffix}" if tasks.name else suffix)
    return change(tasks)
