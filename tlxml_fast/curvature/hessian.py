"""The exact Hessian of the objective."""

from __future__ import annotations

from torch import Tensor

from ..linearize import Linearization
from .base import Curvature


class Hessian(Curvature):
    """H = (1/M) Σ_t ∇²L_t + δI, through the adaptation, third derivatives of the inner loss included.

    Indefinite in practice (92 of 1,285 eigenvalues are negative in the TLXML paper, arXiv 2501.14271): the inverse's
    `negative=` says what becomes of those directions. As a matrix q Hessian-vector products a task and 8q² bytes.
    """

    name = "Hessian"

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """Σ_t ∇²L_t V."""
        return lin.hvp_block(block, V, lin.omega.new_ones(len(lin.episodes[block])))

    def total(self, lin: Linearization, V: Tensor) -> Tensor:
        """Σ_t ∇²L_t V over all tasks."""
        return lin.hvp(V, lin.omega.new_ones(lin.T))
