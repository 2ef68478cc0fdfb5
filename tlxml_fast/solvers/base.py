"""Inverses of a curvature: fitted once, applied to any number of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from .certificate import Solution


@dataclass(frozen=True)
class Relative:
    """A damping given as a fraction of the largest |eigenvalue| of C + diag δ: `Dense(damping=Relative(5e-4))`."""

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


def absolute(damping: float | Relative, largest: float) -> float:
    """λ, given the largest |eigenvalue|."""
    return damping.fraction * largest if isinstance(damping, Relative) else float(damping)


def describe_damping(damping: float | Relative) -> float | str:
    """JSON."""
    return f"{damping.fraction!r} of the largest |eigenvalue|" if isinstance(damping, Relative) else damping


def check_rank(rank: int) -> None:
    """Raise CurvatureError unless the rank is a whole number ≥ 1."""
    if not isinstance(rank, int) or rank < 1:
        raise CurvatureError(f"rank is a whole number of at least 1, not {rank!r}")


def check_tol(tol: float) -> None:
    """Raise CurvatureError unless 0 < tol < 1."""
    if not 0 < tol < 1:
        raise CurvatureError(f"tol lies between 0 and 1, not {tol}")


def check_count(name: str, count: int) -> None:
    """Raise CurvatureError unless the number of something is at least 1."""
    if not isinstance(count, int) or count < 1:
        raise CurvatureError(f"{name} is a whole number of at least 1, not {count!r}")


def right_hand_sides(B: Tensor, q: int) -> Tensor:
    """B in float64. Raises CurvatureError unless it is [K, q] and finite."""
    if B.ndim != 2 or B.shape[1] != q:
        raise CurvatureError(f"right-hand sides are rows of {q:,} entries, not {list(B.shape)}")
    if not torch.isfinite(B).all():
        raise CurvatureError("a right-hand side is not finite")
    return B.double()


class FittedInverse(ABC):
    """H⁺ at given tasks."""

    @abstractmethod
    def solve(self, B: Tensor) -> Solution:
        """H⁺ b_k for the rows of B, [K, q] → [K, q] in float64, with the certificate of these K solutions.

        Raises CurvatureError for rows of another length, or a solve that did not converge; with
        `allow_unconverged=True` the latter is an InfluenceWarning, and the certificate says so.
        """

    @abstractmethod
    def at(self, damping: float | Relative) -> FittedInverse:
        """The inverse with another damping, from the same factorisation. Raises CurvatureError for pseudo-inverses."""

    def of_rank(self, rank: int) -> FittedInverse:
        """The pseudo-inverse on the `rank` leading directions, from the same eigendecomposition.

        Raises CurvatureError where there is none, or it has fewer.
        """
        raise CurvatureError("pseudo-inverses of several ranks need eigen-directions; use Dense or Lanczos")

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What was inverted and how well that went; JSON."""


class Inverse(ABC):
    """A way to invert a curvature."""

    name: str
    by_rows: bool = False
    """Whether it asks for the curvature's rows at all tasks, which then have to be kept."""

    @abstractmethod
    def fit(self, operator: CurvatureOperator) -> FittedInverse:
        """Factor the operator, or whatever else makes `solve` cheap."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
