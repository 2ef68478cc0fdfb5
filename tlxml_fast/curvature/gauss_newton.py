"""The Gauss-Newton approximation of the Hessian."""

from __future__ import annotations

from torch import Tensor

from ..linearize import Linearization
from ..profiling import span
from .base import SAMPLE, Curvature, Way


class GaussNewton(Curvature):
    """G = (1/M) Σ_t J_tᵀ Λ_t J_t + δI, with J_t = ∂f_t/∂ω and Λ_t the Hessian of the loss in the logits.

    Positive semi-definite, and free of the third-order terms of the exact Hessian through adaptation: O(pq) where
    that takes O(pq²) (TLXML, arXiv 2501.14271). Equal to the Hessian where f_t is linear in ω.

    A dense G costs, per task, either q products or n·r pull-backs of a factor of Λ_t (r = C−1 for cross-entropy) and
    2n·r·q² flops; whichever is measured to be cheaper.
    """

    name = "Gauss-Newton"

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """Σ_t J_tᵀ Λ_t J_t V."""
        return lin.gnvp_block(block, V, _ones(lin, block))

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """RᵀR of the pulled-back rows, or products with the identity."""
        tasks = len(lin.episodes[lin.blocks[0]])
        few = lin.omega.new_ones(tasks, min(SAMPLE, lin.gn_rank), lin.n, lin.C)

        def gram(rows: Tensor) -> Tensor:
            rows = rows.flatten(
                0, 1
            )  # their rounding is that of the product: it needs no more precision than they
            m, q = rows.shape
            with span("gram matrix", 2 * m * q * q, (m * q + q * q) * rows.element_size(), dtype=rows.dtype):
                return rows.mT @ rows

        pull_backs = Way(
            f"{lin.gn_rank} pull-backs a task",
            lambda block: gram(lin.gn_rows(block)).double(),
            lambda: gram(lin.vjp_block(lin.blocks[0], few)),
            lin.gn_rank / few.shape[1],
            side_by_side=True,
        )
        return [pull_backs, *super().ways_to_assemble(lin)]


def _ones(lin: Linearization, block: slice) -> Tensor:
    return lin.omega.new_ones(len(lin.episodes[block]))
