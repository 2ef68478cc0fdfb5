"""A block of tasks as the engine's passes take it: their tensors stacked, when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..learners import Episode

Made = TypeVar("Made")


class Batch:
    """T tasks of one shape."""

    def __init__(self, episodes: Sequence[Episode], keeps: bool = False):
        self.episodes = episodes
        self.keeps = keeps
        """Whether what passes make of it at one ω is kept for the next: on a device, which holds one batch."""
        self._kept: dict[str, tuple[Tensor, Any]] = {}

    @classmethod
    def of(cls, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Batch:
        """Of tensors that are stacked already, on a device, which holds one batch."""
        batch = cls(
            [Episode(*parts) for parts in zip(support_x, support_y, query_x, strict=True)], keeps=True
        )
        batch.support_x, batch.support_y, batch.query_x = support_x, support_y, query_x
        return batch

    def keep(self, name: str, omega: Tensor, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for each ω where this batch keeps it."""
        if not self.keeps:
            return make()
        if name not in self._kept or self._kept[name][0] is not omega:
            self._kept[name] = (omega, make())
        return self._kept[name][1]

    def __len__(self) -> int:
        return len(self.episodes)

    @cached_property
    def support_x(self) -> Tensor:
        """[T, S, ...], channels first."""
        return torch.stack([e.support_x for e in self.episodes])

    @cached_property
    def support_y(self) -> Tensor:
        """[T, S], or regression targets."""
        return torch.stack([e.support_y for e in self.episodes])

    @cached_property
    def query_x(self) -> Tensor:
        """[T, n, ...], channels first."""
        return torch.stack([e.query_x for e in self.episodes])
