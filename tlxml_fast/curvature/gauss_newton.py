"""The Gauss-Newton approximation of the Hessian."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linearize import Linearization
from ..profiling import span
from .base import Curvature, Way

# Pulled-back rows of as many tasks as this holds make one product; columns of a panel of it.
ROWS_BYTES = 64 << 20
PANEL = 256


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


def gram(rows: Tensor) -> Tensor:
    """RᵀR in float64 of R [m, q], whose products are as precise as R is; panel by panel, since it is symmetric."""
    m, q = rows.shape
    result = torch.empty(q, q, dtype=torch.float64, device=rows.device)
    flops = 2 * m * sum((q - i) * min(PANEL, q - i) for i in range(0, q, PANEL))
    with span("gram matrix", flops, (m * q + q * q) * rows.element_size(), dtype=rows.dtype):
        for i in range(0, q, PANEL):
            panel = slice(i, min(q, i + PANEL))
            result[panel, i:] = rows[:, panel].mT @ rows[:, i:]
            result[i:, panel] = result[panel, i:].mT
    return result


def _ones(lin: Linearization, block: slice) -> Tensor:
    return lin.omega.new_ones(len(lin.episodes[block]))
