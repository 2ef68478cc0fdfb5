"""Random tasks: noisy class centres."""

from __future__ import annotations

import torch

from ..task import Task, TaskSet


def random_tasks(
    count: int, features: tuple[int, ...], shots: int, *, ways: int = 5, queries: int = 15, seed: int = 0
) -> TaskSet:
    """`count` tasks of one shape, float32."""
    g = torch.Generator().manual_seed(seed)
    y, query_y = (torch.arange(ways).repeat_interleave(n) for n in (shots, queries))

    def task() -> Task:
        centres = torch.randn(ways, *features, generator=g)
        x, query = (
            centres[labels] + torch.randn(len(labels), *features, generator=g) for labels in (y, query_y)
        )
        return Task(x, y, query, query_y)

    return TaskSet([task() for _ in range(count)])
