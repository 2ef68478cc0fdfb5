"""Gram matrices: symmetric, so that half of the products will do."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gemm import mm_nt
from ..profiling import span

# Columns of a panel.
PANEL = 256


def gram(rows: Tensor, total: Tensor | None = None) -> Tensor:
    """RᵀR in float64 of R [m, q], whose products are as precise as R is; panel by panel, since it is symmetric.

    It is added to `total` [q, q] where that is given, in place.
    """
    m, q = rows.shape
    columns = (rows.float() if rows.dtype == torch.bfloat16 else rows).mT.contiguous()
    if total is None:
        total = torch.zeros(q, q, dtype=torch.float64, device=rows.device)
    flops = 2 * m * sum((q - i) * min(PANEL, q - i) for i in range(0, q, PANEL))
    with span("gram matrix", flops, (m * q + q * q) * rows.element_size(), dtype=rows.dtype):
        for i in range(0, q, PANEL):
            panel = slice(i, min(q, i + PANEL))
            total[panel, i:] += mm_nt(columns[panel], columns[i:])
            total[panel.stop :, panel] = total[panel, panel.stop :].mT
    return total
