"""Conjugate gradients for many right-hand sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solved:
    """The solutions [K, q], and the largest ‖r‖/‖b‖ by the recursion: at the start, and after each product."""

    x: Tensor
    residuals: list[float]

    @property
    def iterations(self) -> int:
        """How many products it took."""
        return len(self.residuals) - 1

    def iterations_to(self, residual: float) -> int:
        """How many products it took to come to a residual. Raises StopIteration if it never did."""
        return next(i for i, r in enumerate(self.residuals) if r <= residual)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], B: Tensor, damping: float, tolerance: float, most: int = 1000
) -> Solved:
    """(G + damping·I) x_k = b_k: one product of all K vectors an iteration, until every ‖r‖/‖b‖ ≤ tolerance.

    Each b_k has its own Krylov space. A space that all share needs fewer products, q/K at worst, and then is no
    better than forming G by products with the identity, which the benchmark times as well.
    """
    tiny = torch.finfo(B.dtype).tiny
    X, R = torch.zeros_like(B), B.clone()
    P, squared = R, R.square().sum(1, keepdim=True)
    start = squared.clamp_min(tiny)
    residuals = [float((squared / start).max().sqrt())]
    while residuals[-1] > tolerance and len(residuals) <= most:
        A = product(P) + damping * P
        step = squared / (P * A).sum(1, keepdim=True).clamp_min(
            tiny
        )  # a vector that is solved stays where it is
        X, R = X + step * P, R - step * A
        before, squared = squared, R.square().sum(1, keepdim=True)
        P = R + squared / before.clamp_min(tiny) * P
        residuals.append(float((squared / start).max().sqrt()))
    return Solved(X, residuals)
