"""Dense random signs."""

from __future__ import annotations

from torch import Tensor

from ..ops.rademacher import rademacher
from .base import Compression


class Rademacher(Compression):
    """All entries of P are ±1/√d, generated as they are needed.

        Var⟨Px, Py⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σ_i x_i² y_i²) / d

    with the tails of a Gaussian or better, for any vectors (Achlioptas, "Database-friendly random projections", JCSS
    66, 2003). m rows of q numbers cost m·q·d/4 additions on the CPU, 2·m·q·d flops on a device: many times the others'
    cost, whose errors are no larger unless a few entries of a vector outweigh the rest. Scratch memory is at most
    65,536 numbers for each thread.

    Args:
        dimension: d; above q too.
        seed, storage: as in `Compression`.
    """

    name = "Rademacher"

    def project(self, rows: Tensor) -> Tensor:
        """See `Compression.project`."""
        return rademacher(rows, self.dimension, seed=self.seed)
