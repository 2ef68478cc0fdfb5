"""Between flat vectors of parameters and the named tensors that layers read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..learners import Learner
from .base import FlatParameters


class Layout:
    """The module's own parameters within ω, and the constants beside them."""

    def __init__(self, learner: Learner, flat: FlatParameters, dtype: torch.dtype, device: torch.device):
        own = learner.body.parameters()
        self.shapes = {name: tuple(p.shape) for name, p in own.items()}
        self.sizes = [p.numel() for p in own.values()]
        self.size = sum(self.sizes)
        """p: ω begins with these; learned rates follow."""
        self.names = frozenset(own)
        self.constants = {
            name: value.to(device, dtype)[None]
            for name, value in learner.body.constants()
            if value.is_floating_point()
        }

    def primal(self, theta: Tensor) -> dict[str, Tensor]:
        """θ [T or 1, p] → name → [T or 1, *shape], with the constants."""
        return {**self.constants, **self.tangents(theta)}

    def tangents(self, v: Tensor, only: Iterable[str] | None = None) -> dict[str, Tensor]:
        """[..., p] → name → [..., *shape]."""
        parts = v.split(self.sizes, dim=-1)
        wanted = self.names if only is None else set(only)
        return {
            name: part.reshape(*v.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
            if name in wanted
        }

    def flatten(self, named: dict[str, Tensor], T: int, K: int, like: Tensor) -> Tensor:
        """name → [T, K, *shape] → [T, K, p]; what is missing is zero."""
        parts = [
            named[name].reshape(T, K, size) if name in named else like.new_zeros(T, K, size)
            for (name, _), size in zip(self.shapes.items(), self.sizes, strict=True)
        ]
        return torch.cat(parts, dim=-1)
