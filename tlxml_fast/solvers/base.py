"""Inverses of a curvature: fitted once, applied to any number of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError


@dataclass(frozen=True)
class Relative:
    """A damping given as a fraction of the largest |eigenvalue|: `Dense(damping=Relative(5e-4))`."""

    fraction: float

    def __post_init__(self) -> None:
        check_damping(self.fraction)


def check_damping(damping: float | Relative) -> None:
    """Raise CurvatureError unless the damping is a finite number ≥ 0, or Relative."""
    if isinstance(damping, Relative):
        return
    if not isinstance(damping, (int, float)):
        raise CurvatureError(f"damping is a number or Relative(number), not {damping!r}")
    if not 0 <= damping < float("inf"):
        raise CurvatureError(f"damping is a finite number of at least 0, not {damping}")


class FittedInverse(ABC):
    """H⁺ at given tasks."""

    @abstractmethod
    def apply(self, B: Tensor) -> Tensor:
        """H⁺ b_k: [K, q] → [K, q] in float64."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What was inverted and how well that went; JSON."""


class Inverse(ABC):
    """A way to invert a curvature."""

    name: str

    @abstractmethod
    def fit(self, operator: CurvatureOperator) -> FittedInverse:
        """Factor the operator, or whatever else makes `apply` cheap."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
