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
        self.device = device
        self.names = frozenset(own)
        self.packed: frozenset[str] = frozenset()
        self.constants = {
            name: value.to(device, dtype)[None]
            for name, value in learner.body.constants()
            if value.is_floating_point()
        }

    def pack(self, names: Iterable[str]) -> None:
        """Lay the weights of convolutions [O, I, kh, kw] out as [kh, kw, I, O], which a device's products read.

        One launch turns all of a vector; without this each weight would be turned by itself.
        """
        self.packed = frozenset(names)
        if not self.packed:
            return
        places = torch.arange(self.size).split(self.sizes)
        self.order = torch.cat([
            place.view(shape).permute(2, 3, 1, 0).flatten() if name in self.packed else place
            for (name, shape), place in zip(self.shapes.items(), places, strict=True)
        ]).to(self.device)  # fmt: skip
        self.inverse = self.order.argsort()

    def primal(self, theta: Tensor) -> dict[str, Tensor]:
        """θ [T or 1, p] → name → [T or 1, *shape], with the constants."""
        return {**self.constants, **self.tangents(theta)}

    def tangents(self, v: Tensor, only: Iterable[str] | None = None) -> dict[str, Tensor]:
        """[..., p] → name → [..., *shape]."""
        if self.packed:
            v = v.index_select(-1, self.order)
        parts = v.split(self.sizes, dim=-1)
        wanted = self.names if only is None else set(only)
        return {
            name: self._shaped(name, part, shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
            if name in wanted
        }

    def _shaped(self, name: str, part: Tensor, shape: tuple[int, ...]) -> Tensor:
        if name not in self.packed:
            return part.unflatten(-1, shape) if shape else part.squeeze(-1)
        O, I, kh, kw = shape
        return part.unflatten(-1, (kh, kw, I, O)).movedim((-1, -2), (-4, -3))

    def flatten(self, named: dict[str, Tensor], T: int, K: int, like: Tensor) -> Tensor:
        """name → [T, K, *shape] → [T, K, p]; what is missing is zero."""
        parts, missing = (
            [],
            [size for name, size in zip(self.shapes, self.sizes, strict=True) if name not in named],
        )
        zero = like.new_zeros(T, K, max(missing, default=0))
        for name, size in zip(self.shapes, self.sizes, strict=True):
            part = named.get(name)
            if part is not None and name in self.packed:
                part = part.permute(0, 1, 4, 5, 3, 2)
            parts.append(zero[..., :size] if part is None else part.reshape(T, K, size))
        flat = torch.cat(parts, dim=-1)
        return flat.index_select(-1, self.inverse) if self.packed else flat
