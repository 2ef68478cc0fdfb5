"""A block of tasks as the engine's passes take it: their tensors stacked, when they are first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..learners import Episode


class Batch:
    """T tasks of one shape."""

    def __init__(self, episodes: Sequence[Episode]):
        self.episodes = episodes

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
