"""What every curvature is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..linearize import Linearization

# Columns of the identity in one product while a matrix is assembled.
COLUMNS_AT_ONCE = 256
# Vectors in the sample that a way of assembling is timed by.
SAMPLE = 8


@dataclass(frozen=True)
class Way:
    """A way to assemble the dense matrices of tasks."""

    name: str
    assemble: Callable[[int], Tensor]
    """From the index of a task to its matrix, [q, q], float64."""
    sample: Callable[[], object]
    """A part of the work for the first task, to be timed."""
    samples_a_task: float
    """How many times the sample a task takes."""
    side_by_side: bool
    """Whether tasks may run in parallel threads: reverse mode may, torch's forward mode has one global level."""


class Curvature(ABC):
    """The matrix that stands for the second derivative of the objective (1/M) Σ_t L_t(ω) + (δ/2)‖ω‖²."""

    name: str

    @abstractmethod
    def product(self, lin: Linearization, t: int, V: Tensor) -> Tensor:
        """The matrix of task t times K vectors: [K, q] → [K, q]."""

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """The ways there are; the cheapest that works is used."""

        def unit_vectors(first: int, count: int) -> Tensor:
            vectors = torch.zeros(min(count, lin.q - first), lin.q, dtype=lin.dtype, device=lin.device)
            vectors.diagonal(first).fill_(1)
            return vectors

        def products(t: int) -> Tensor:
            starts = range(0, lin.q, COLUMNS_AT_ONCE)
            return torch.cat(
                [self.product(lin, t, unit_vectors(i, COLUMNS_AT_ONCE)).double() for i in starts]
            )

        few = unit_vectors(0, SAMPLE)
        name = f"{lin.q} products a task"
        return [Way(name, products, lambda: self.product(lin, 0, few), lin.q / len(few), side_by_side=False)]

    def describe(self) -> dict[str, Any]:
        """JSON for results."""
        return {"curvature": self.name}
