"""What every curvature is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..linearize import Linearization

# Columns of the identity in one product while a matrix is assembled.
COLUMNS_AT_ONCE = 256
# Vectors in the sample that a way of assembling is tried on.
SAMPLE = 8


@dataclass(frozen=True)
class Way:
    """A way to assemble the dense matrices of tasks."""

    name: str
    assemble: Callable[[slice], Tensor]
    """From a block of tasks to the sum of their matrices, [q, q], float64."""
    sample: Callable[[], object]
    """A part of the work for the first block, which shows whether the model has the derivatives."""
    passes: int
    """What a task costs, in passes of one vector through it, forwards or backwards."""
    side_by_side: bool
    """Whether blocks may run in parallel threads."""


class Curvature(ABC):
    """The matrix that stands for the second derivative of the objective (1/M) Σ_t L_t(ω) + (δ/2)‖ω‖²."""

    name: str

    @abstractmethod
    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """The sum of a block's matrices times K vectors: [K, q] → [K, q]."""

    def total(self, lin: Linearization, V: Tensor) -> Tensor:
        """The sum of all tasks' matrices times K vectors: [K, q] → [K, q]."""
        raise CurvatureError(f"{self.name} has no products")

    by_rows: bool = False
    """Whether the matrix is defined by its rows, and products go by them."""

    def row_count(self, lin: Linearization) -> int:
        """r, the number of rows of a task."""
        raise CurvatureError(
            f"the {self.name} matrix has no rows; choose an inverse that needs products only"
        )

    def rows(self, lin: Linearization, block: slice) -> Tensor:
        """R_t with C_t = R_tᵀR_t for each task of a block: [B, r, q]."""
        raise CurvatureError(
            f"the {self.name} matrix has no rows; choose an inverse that needs products only"
        )

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """The ways there are; the cheapest that works is used.

        Cheapest by count, not by the clock: a choice that hung on it would change a result's last digits between runs.
        """

        def unit_vectors(first: int, count: int) -> Tensor:
            vectors = torch.zeros(min(count, lin.q - first), lin.q, dtype=lin.dtype, device=lin.device)
            vectors.diagonal(first).fill_(1)
            return vectors

        columns = min(COLUMNS_AT_ONCE, lin.vectors_at_once())

        def products(block: slice) -> Tensor:
            starts = range(0, lin.q, columns)
            return torch.cat([self.product(lin, block, unit_vectors(i, columns)).double() for i in starts])

        few = unit_vectors(0, SAMPLE)
        name = f"{lin.q} products a task"
        return [
            Way(
                name,
                products,
                lambda: self.product(lin, lin.blocks[0], few),
                2 * lin.q,
                lin.forward_side_by_side,
            )
        ]

    def describe(self) -> dict[str, Any]:
        """JSON for results."""
        return {"curvature": self.name}
