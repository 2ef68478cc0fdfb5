"""The sparse Johnson–Lindenstrauss transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import TlxError
from ..ops.sjlt import sjlt
from .base import Compression


class SJLT(Compression):
    """Each column of P has s entries ±1/√s, one in each of s blocks of rows.

        Var⟨Px, Py⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σ_i x_i² y_i²) / d       where s divides d

    That is the variance of dense signs, whatever s is; more nonzeros make large errors rarer for vectors with a few
    entries that outweigh the others (Kane and Nelson, "Sparser Johnson–Lindenstrauss transforms", J. ACM 61, 2014).
    m rows of q numbers cost m·q·s additions, and with few nonzeros no more than it takes to read them: the fastest one.
    Scratch memory is m·d numbers, and 4·s bytes for each of at most 2¹⁸ columns.

    Args:
        dimension: d; above q too.
        nonzeros: s, 1 to d; 4 unless given, or d where that is less.
        seed, storage: as in `Compression`.
    """

    name = "SJLT"

    def __init__(
        self,
        dimension: int,
        nonzeros: int | None = None,
        *,
        seed: int = 0,
        storage: torch.dtype = torch.float32,
    ):
        super().__init__(dimension, seed=seed, storage=storage)
        self.nonzeros = min(4, dimension) if nonzeros is None else nonzeros
        if not 1 <= self.nonzeros <= dimension:
            raise TlxError(f"SJLT: nonzeros is {nonzeros}, expected 1 to dimension = {dimension}.")

    def project(self, rows: Tensor) -> Tensor:
        """See `Compression.project`; Σ_i runs in order, bit-identical on the CPU and on a device."""
        return sjlt(rows, self.dimension, self.nonzeros, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        """See `Compression.describe`."""
        return {**super().describe(), "nonzeros": self.nonzeros}
