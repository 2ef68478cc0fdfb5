"""What every compression is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..errors import TlxError
from ..ops.philox import check_drawn

STORAGES = (torch.float32, torch.bfloat16)


class Compression(ABC):
    """A random d × q matrix P with E[PᵀP] = I: ⟨Px, Py⟩ estimates ⟨x, y⟩ without bias.

    P depends on the seed, d and q alone: gradients that were projected apart, on any device, can be compared.

    Args:
        dimension: d, what is kept of a row of q numbers.
        seed: of P, 0 to 2⁶³ − 1.
        storage: float32, or bfloat16: half the bytes, and a relative error of at most 2⁻⁹ in each number, far below
            that of the projection.

    Raises:
        TlxError: a setting is out of range.
    """

    name: str

    def __init__(self, dimension: int, *, seed: int = 0, storage: torch.dtype = torch.float32):
        check_drawn(self.name, dimension, seed)
        if storage not in STORAGES:
            raise TlxError(f"{self.name}: storage is {storage}, expected torch.float32 or torch.bfloat16.")
        self.dimension, self.seed, self.storage = dimension, seed, storage

    @abstractmethod
    def project(self, rows: Tensor) -> Tensor:
        """Rows times Pᵀ: [m, q] → [m, d] in the dtype of the rows, float32 or float64.

        A row's projection does not depend on the rows beside it, nor on the number of threads.
        """

    def store(self, rows: Tensor) -> Tensor:
        """The projections as they are to be kept: [m, q] → [m, d] in `storage`, rounded to nearest."""
        return self.project(rows).to(self.storage)

    def check(self, q: int) -> None:  # noqa: B027 — most take any q
        """Raise TlxError unless rows of q numbers can be projected: for use before they are computed."""

    def describe(self) -> dict[str, Any]:
        """JSON for results: all that P depends on, and the storage."""
        return {
            "compression": self.name,
            "dimension": self.dimension,
            "seed": self.seed,
            "storage": str(self.storage).removeprefix("torch."),
        }

    def __repr__(self) -> str:
        settings = {**self.describe(), "storage": self.storage}
        return (
            f"{settings.pop('compression')}({', '.join(f'{key}={value}' for key, value in settings.items())})"
        )
