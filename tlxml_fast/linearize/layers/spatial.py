"""Layers that only move or average positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import LinearLayer


class Flatten(LinearLayer):
    """[T, N, H, W, K, C] → [T, N, K, C·H·W], in torch's order of channels first; vectors stay as they are."""

    def apply(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """Channels first, flattened."""
        if x.ndim == 4:
            return x, x.shape
        return x.permute(0, 1, 4, 5, 2, 3).flatten(3), x.shape

    def adjoint(self, saved: torch.Size, gy: Tensor) -> Tensor:
        """Channels last again."""
        if len(saved) == 4:
            return gy
        T, N, H, W, _, C = saved
        return gy.view(T, N, -1, C, H, W).permute(0, 1, 4, 5, 2, 3).contiguous()


class Averages(LinearLayer):
    """Average pools of any kind: a small matrix over positions, read off torch's own function once a size."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function
        self._matrices: dict[tuple, tuple[Tensor, tuple[int, int]]] = {}

    def apply(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, torch.Size]]:
        """The matrix times positions."""
        T, N, H, W, K, C = x.shape
        matrix, (Ho, Wo) = self._matrix(H, W, x)
        y = matrix @ x.reshape(T * N, H * W, K * C)
        return y.view(T, N, Ho, Wo, K, C), (matrix, x.shape)

    def adjoint(self, saved: tuple[Tensor, torch.Size], gy: Tensor) -> Tensor:
        """Its transpose."""
        matrix, (T, N, H, W, _, C) = saved
        K = gy.shape[4]
        return (matrix.mT @ gy.reshape(T * N, -1, K * C)).view(T, N, H, W, K, C)

    def _matrix(self, H: int, W: int, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        key = (H, W, x.dtype, x.device)
        if key not in self._matrices:
            basis = torch.eye(H * W, dtype=x.dtype, device=x.device).view(H * W, 1, H, W)
            pooled = self.function(basis)
            self._matrices[key] = (pooled.flatten(1).mT.contiguous(), tuple(pooled.shape[2:]))
        return self._matrices[key]
