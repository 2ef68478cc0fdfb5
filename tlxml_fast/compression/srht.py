"""The subsampled randomised Hadamard transform."""

from __future__ import annotations

from torch import Tensor

from ..ops.srht import check_srht, srht
from .base import Compression


class SRHT(Compression):
    """d of the N Hadamard coefficients of a row with random signs, N being q padded to a power of two.

        Var⟨Px, Py⟩ = (N − d)/(N − 1) · (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σ_i x_i² y_i²) / d

    Below that of dense signs where d is a large part of N, and nothing at d = N, where P is an isometry (Ailon and
    Chazelle, "The fast Johnson–Lindenstrauss transform", SIAM J. Comput. 39, 2009; Tropp, "Improved analysis of the
    subsampled randomized Hadamard transform", 2011). m rows of q numbers cost about m·q·(12 + d/4096) additions.
    Scratch memory is 16·(4,096 + d) numbers for each thread; on a device m·q numbers, of at most 2²⁸ at a time.

    Args:
        dimension: d, at most N.
        seed, storage: as in `Compression`.
    """

    name = "SRHT"

    def project(self, rows: Tensor) -> Tensor:
        """See `Compression.project`. Raises TlxError where d is above N."""
        return srht(rows, self.dimension, seed=self.seed)

    def check(self, q: int) -> None:
        """See `Compression.check`."""
        check_srht(self.dimension, q, self.seed)
