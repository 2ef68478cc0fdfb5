"""No curvature: gradients compared as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..linearize import Linearization
from .base import Curvature


class Identity(Curvature):
    """H = I, so that I_perf(i, j) = −⟨∇L_i, ∇L_j⟩; with normalize=True, minus their cosine.

    The baseline of gradient similarity. Uses no inverse and no weight decay.
    """

    name = "Identity"

    def __init__(self, normalize: bool = False):
        self.normalize = normalize

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """V."""
        return V

    def describe(self) -> dict[str, Any]:
        """JSON for results."""
        return {"curvature": self.name, "normalize": self.normalize}
