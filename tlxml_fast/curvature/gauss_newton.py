"""The Gauss-Newton approximation of the Hessian."""

from __future__ import annotations

from torch import Tensor

from ..linearize import Linearization
from .base import Curvature, Way
from .gram import gram

# Pulled-back rows of as many tasks as this holds make one product.
ROWS_BYTES = 64 << 20


class GaussNewton(Curvature):
    """G = (1/M) Σ_t J_tᵀ Λ_t J_t + δI, with J_t = ∂f_t/∂ω and Λ_t the Hessian of the loss in the logits.

    Positive semi-definite, and free of the third-order terms of the exact Hessian through adaptation: O(pq) where
    that takes O(pq²) (TLXML, arXiv 2501.14271). Equal to the Hessian where f_t is linear in ω.

    A dense G costs, per task, either q products or n·r pull-backs of a factor of Λ_t (r = C−1 for cross-entropy) and
    2n·r·q² flops. It is assembled by pull-backs unless n·r > 2q: a product is a pass forwards and one back.
    """

    name = "Gauss-Newton"

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """Σ_t J_tᵀ Λ_t J_t V."""
        return lin.gnvp_block(block, V, _ones(lin, block))

    def total(self, lin: Linearization, V: Tensor) -> Tensor:
        """Σ_t J_tᵀ Λ_t J_t V over all tasks."""
        return lin.gnvp(V, lin.omega.new_ones(lin.T))

    def row_count(self, lin: Linearization) -> int:
        """n·r: every query's, of a factor of its Λ."""
        return lin.gn_rank

    def rows(self, lin: Linearization, block: slice) -> Tensor:
        """The factor of Λ_t, pulled back."""
        return lin.gn_rows(block)

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """RᵀR of the pulled-back rows, or products with the identity."""
        tasks = max(1, ROWS_BYTES // (lin.gn_rank * lin.q * lin.omega.element_size()))

        def pull_backs(block: slice, columns: int | None = None) -> Tensor:
            parts = (slice(i, min(block.stop, i + tasks)) for i in range(block.start, block.stop, tasks))
            return sum(gram(lin.gn_rows(part, columns).flatten(0, 1)) for part in parts)

        first = lin.blocks[0]
        way = Way(
            f"{lin.gn_rank} pull-backs a task",
            pull_backs,
            lambda: pull_backs(slice(first.start, first.start + 1), 1),
            lin.gn_rank,
            side_by_side=True,
        )
        return [way, *super().ways_to_assemble(lin)]


def _ones(lin: Linearization, block: slice) -> Tensor:
    return lin.omega.new_ones(len(lin.episodes[block]))
