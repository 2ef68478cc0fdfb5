"""The operator's products, counted and checked: passes over all tasks dominate whatever else a solver does."""

from __future__ import annotations

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError

# Vectors in one pass, where a sketch needs more.
AT_ONCE = 256


class Products:
    """(C + diag δ)V by the operator, counting."""

    def __init__(self, operator: CurvatureOperator):
        self.operator = operator
        self.passes = 0
        self.vectors = 0

    def __call__(self, V: Tensor) -> Tensor:
        """[K, q] → [K, q] in float64. Raises CurvatureError where it is not finite."""
        self.passes += 1
        self.vectors += len(V)
        result = self.operator.product(V)
        if not torch.isfinite(result).all():
            raise CurvatureError("a product with the curvature is not finite")
        return result

    def without_decay(self, V: Tensor) -> Tensor:
        """C V, in passes of at most AT_ONCE vectors."""
        return torch.cat([self(part) for part in V.split(AT_ONCE)]) - self.operator.decay * V


def rounding(operator: CurvatureOperator) -> float:
    """The relative error to be expected of an eigenvalue, of the largest."""
    return max(operator.q * torch.finfo(torch.float64).eps, torch.finfo(operator.dtype).eps)


def generator(seed: int) -> torch.Generator:
    """Random numbers of a seed, the same for every device: they are drawn on the CPU."""
    return torch.Generator().manual_seed(seed)


def gaussian(rows: int, columns: int, random: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal, [rows, columns], float64."""
    return torch.randn(rows, columns, generator=random, dtype=torch.float64).to(device)
