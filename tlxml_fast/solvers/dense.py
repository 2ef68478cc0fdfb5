"""The dense inverse, by eigendecomposition."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..profiling import span
from .base import FittedInverse, Inverse, Relative, check_damping

NEGATIVE = ("drop", "keep", "abs", "error")


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
        if negative not in NEGATIVE:
            raise CurvatureError(f"negative is one of {', '.join(NEGATIVE)}, not {negative!r}")
        self.damping, self.rank, self.rtol, self.negative = damping, rank, rtol, negative

    def fit(self, operator: CurvatureOperator) -> FittedDense:
        """Assemble the matrix and decompose it."""
        _require_memory(operator.q)
        matrix = operator.dense()
        with span("eigendecomposition", 9 * operator.q**3, dtype=matrix.dtype):
            eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
        return self.invert(eigenvalues, eigenvectors, operator.dtype)

    def invert(self, eigenvalues: Tensor, eigenvectors: Tensor, dtype: torch.dtype) -> FittedDense:
        """The inverse from a decomposition of a matrix that was computed in `dtype`."""
        size = eigenvalues.abs()
        largest = float(size.max())
        rounding = max(len(size) * torch.finfo(torch.float64).eps, torch.finfo(dtype).eps) * largest
        damping = (
            self.damping.fraction * largest if isinstance(self.damping, Relative) else float(self.damping)
        )
        negative = eigenvalues < -rounding
        if self.negative == "error" and negative.any():
            raise CurvatureError(
                f"{int(negative.sum())} of {len(size)} eigenvalues are negative, "
                f"the lowest {float(eigenvalues.min()):.3g}"
            )
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
        return FittedDense(eigenvalues, eigenvectors, h, damping, int(negative.sum()))

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        relative = isinstance(self.damping, Relative)
        return {
            "inverse": self.name,
            "damping": f"{self.damping.fraction:g} of the largest |eigenvalue|" if relative else self.damping,
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
    """Q diag(h) Qᵀ, and the spectrum it came from (ascending)."""

    eigenvalues: Tensor
    eigenvectors: Tensor
    h: Tensor
    damping: float
    negative: int

    def apply(self, B: Tensor) -> Tensor:
        """Q(h ∘ Qᵀb_k)."""
        k, q = B.shape
        with span("dense inverse", 4 * k * q * q, 8 * (2 * q * q + 4 * k * q), dtype=torch.float64):
            return ((B.double() @ self.eigenvectors) * self.h) @ self.eigenvectors.mT

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
            "effective_rank": float((1 - self.damping * self.h)[kept].sum()),
            "damping": self.damping,
        }


def _require_memory(q: int) -> None:
    """Refuse a matrix that cannot fit, before anything long begins."""
    needed = 4 * 8 * q * q
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise CurvatureError(
            f"Dense needs {needed / 2**30:.1f} GiB for {q:,} meta-parameters, and {available / 2**30:.1f} GiB are free"
        )
