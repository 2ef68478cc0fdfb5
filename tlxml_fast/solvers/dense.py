"""The dense inverse, by eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..profiling import span
from .base import (
    FittedInverse,
    Inverse,
    Relative,
    absolute,
    check_damping,
    describe_damping,
    right_hand_sides,
)
from .certificate import Certificate, Solution, relative_residuals
from .memory import require_memory
from .negative import check_negative, refuse_negative


class Dense(Inverse):
    """H⁺ = Q diag(h) Qᵀ from the eigendecomposition H = Q diag(λ) Qᵀ, in float64.

    damping   (H + damping·I)⁻¹: h = 1/(λ + damping); a number, or Relative(fraction) of max |λ|
    rank      pseudo-inverse on the `rank` directions of largest |λ|: h = 1/λ there, 0 elsewhere
    rtol      pseudo-inverse on the directions with |λ| > rtol·max |λ|
    negative  what becomes of directions with λ < 0 (beyond rounding): "drop" h = 0; "keep" h as above;
              "abs" |λ| for λ; "error". Self-influence is ≤ 0 with "drop" and "abs" only

    q²·8 bytes four times over, and about 9q³ flops. Raises CurvatureError for damping < 0, damping together
    with rank or rtol, a rank above the numerical rank, or a matrix singular to rounding after damping.
    """

    name = "Dense"

    def __init__(
        self,
        damping: float | Relative = 0.0,
        rank: int | None = None,
        rtol: float | None = None,
        negative: str = "drop",
    ):
        check_damping(damping)
        if (rank is not None or rtol is not None) and damping != 0:
            raise CurvatureError(
                "damping goes with the full inverse and rank or rtol with the pseudo-inverse; give one"
            )
        if rank is not None and rtol is not None:
            raise CurvatureError("give rank or rtol, not both")
        if rank is not None and rank < 1:
            raise CurvatureError(f"rank is at least 1, not {rank}")
        if rtol is not None and not 0 <= rtol < 1:
            raise CurvatureError(f"rtol lies between 0 and 1, not {rtol}")
        check_negative(negative)
        self.damping, self.rank, self.rtol, self.negative = damping, rank, rtol, negative

    def fit(self, operator: CurvatureOperator) -> FittedDense:
        """Assemble the matrix and decompose it."""
        q = operator.q
        require_memory(4 * 8 * q * q, f"Dense for {q:,} meta-parameters", operator.device)

        def decomposed() -> dict[str, Tensor]:
            matrix = operator.dense()
            with span("eigendecomposition", 9 * q**3, dtype=matrix.dtype):
                values, vectors = torch.linalg.eigh(matrix)
            return {"matrix": matrix, "eigenvalues": values, "eigenvectors": vectors}

        return self.invert(**operator.factored("dense", decomposed), dtype=operator.dtype)

    def invert(
        self, matrix: Tensor, eigenvalues: Tensor, eigenvectors: Tensor, dtype: torch.dtype
    ) -> FittedDense:
        """The inverse from the decomposition of a matrix that was computed in `dtype`."""
        size = eigenvalues.abs()
        largest = float(size.max())
        rounding = max(len(size) * torch.finfo(torch.float64).eps, torch.finfo(dtype).eps) * largest
        damping = absolute(self.damping, largest)
        negative = eigenvalues < -rounding
        if self.negative == "error":
            refuse_negative(eigenvalues, negative)
        inverted = (size if self.negative == "abs" else eigenvalues) + damping
        kept = self._kept(size, rounding)
        if self.negative == "drop":
            kept = kept & ~negative
        if not kept.any():
            raise CurvatureError("no eigenvalue is left to invert")
        least = float(inverted[kept].abs().min())
        if least <= rounding:
            raise CurvatureError(
                f"the matrix is singular to rounding after damping (an eigenvalue of {least:.1e} beside one of "
                f"{largest:.1e}); raise the damping, or give rank or rtol"
            )
        h = torch.where(kept, 1 / inverted, torch.zeros_like(inverted))
        return FittedDense(self, matrix, dtype, eigenvalues, eigenvectors, h, damping, int(negative.sum()))

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {
            "inverse": self.name,
            "damping": describe_damping(self.damping),
            "rank": self.rank,
            "rtol": self.rtol,
            "negative": self.negative,
        }

    def _kept(self, size: Tensor, rounding: float) -> Tensor:
        if self.rank is not None:
            numerical = int((size > rounding).sum())
            if self.rank > numerical:
                raise CurvatureError(
                    f"rank is {self.rank}, and only {numerical} eigenvalues are not zero to rounding"
                )
            kept = torch.zeros_like(size, dtype=torch.bool)
            kept[size.argsort(descending=True)[: self.rank]] = True
            return kept
        if self.rtol is not None:
            return size > max(self.rtol * float(size.max()), rounding)
        return torch.ones_like(size, dtype=torch.bool)


@dataclass(frozen=True)
class FittedDense(FittedInverse):
    """Q diag(h) Qᵀ, the matrix, and its spectrum (ascending)."""

    inverse: Dense
    matrix: Tensor
    dtype: torch.dtype
    """Of the computations the matrix came from."""
    eigenvalues: Tensor
    eigenvectors: Tensor
    h: Tensor
    damping: float
    negative: int

    def solve(self, B: Tensor) -> Solution:
        """Q(h ∘ Qᵀb_k), with residuals against the matrix itself, not judged; 6q² flops a right-hand side.

        Of a pseudo-inverse, and where negative directions are dropped, a residual includes the part of b left out.
        With negative="abs" it is that of Q(|λ| + damping)Qᵀ.
        """
        q = len(self.matrix)
        B = right_hand_sides(B, q)
        with span("dense inverse", 4 * len(B) * q * q, 8 * (2 * q * q + 4 * len(B) * q), dtype=torch.float64):
            coefficients = (B @ self.eigenvectors) * self.h
            X = coefficients @ self.eigenvectors.mT
        turned = X
        if self.inverse.negative == "abs" and self.negative:
            turned = (coefficients * self.eigenvalues.sign()) @ self.eigenvectors.mT
        with span("residuals", 2 * len(B) * q * q, 8 * q * q, dtype=torch.float64):
            R = B - turned @ self.matrix - self.damping * X
        certificate = Certificate(
            tuple(relative_residuals(R, B).tolist()),
            self.damping,
            float(self.eigenvalues[-1]),
            float(self.eigenvalues[0]),
            self.effective_rank,
            exact=bool((self.h != 0).all()),
        )
        return Solution(X, certificate)

    def at(self, damping: float | Relative) -> FittedDense:
        """Another damping, from the same eigendecomposition."""
        if self.inverse.rank is not None or self.inverse.rtol is not None:
            raise CurvatureError("a pseudo-inverse by rank or rtol has no damping to change")
        other = Dense(damping, negative=self.inverse.negative)
        return other.invert(self.matrix, self.eigenvalues, self.eigenvectors, self.dtype)

    def of_rank(self, rank: int) -> FittedDense:
        """The pseudo-inverse of a rank, from the same eigendecomposition."""
        other = Dense(rank=rank, negative=self.inverse.negative)
        return other.invert(self.matrix, self.eigenvalues, self.eigenvectors, self.dtype)

    @property
    def effective_rank(self) -> float:
        """Σ λ/(λ + damping) over kept directions."""
        kept = self.h != 0
        return float((1 - self.damping * self.h)[kept].sum())

    def describe(self) -> dict[str, Any]:
        """The spectrum; the condition number of what was inverted; the effective rank over kept directions.

        That is Σ λ/(λ + damping), with |λ| for λ where negative="abs": without damping, the number of directions.
        """
        kept = self.h != 0
        sizes = self.h[kept].abs()
        return {
            "eigenvalues": self.eigenvalues.tolist(),
            "n_negative": self.negative,
            "n_kept": int(kept.sum()),
            "condition_number": float(sizes.max() / sizes.min()),
            "effective_rank": self.effective_rank,
            "damping": self.damping,
        }
