"""A diagonal plus few rows, D + RᵀR: solves and square roots that cost products with R."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..errors import CurvatureError
from .dual import Cholesky, Spectral


class RowsLike(Protocol):
    """N rows of q entries, R, known by their products; all in float64."""

    N: int

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """R diag(w) Rᵀ, [N, N], which the caller may overwrite; w > 0, 1 unless given."""

    def push(self, V: Tensor) -> Tensor:
        """V Rᵀ: [K, q] → [K, N]."""

    def pull(self, W: Tensor) -> Tensor:
        """W R: [K, N] → [K, q]."""


class Factor:
    """Rows that are there as a matrix F, [N, q] in float64."""

    def __init__(self, F: Tensor):
        self.F, self.N = F, len(F)

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """F diag(w) Fᵀ."""
        return (self.F if weights is None else self.F * weights) @ self.F.mT

    def push(self, V: Tensor) -> Tensor:
        """V Fᵀ."""
        return V @ self.F.mT

    def pull(self, W: Tensor) -> Tensor:
        """W F."""
        return W @ self.F


def weighted_gram(rows: RowsLike, D: Tensor) -> Tensor:
    """R D⁻¹ Rᵀ, [N, N], for D of q entries; N²q flops."""
    return rows.gram().div_(float(D[0])) if uniform(D) else rows.gram(1 / D)


def uniform(D: Tensor) -> bool:
    """Whether all entries are the same."""
    return bool((D[0] == D).all())


def require_positive(D: Tensor) -> None:
    """Raise CurvatureError unless the damping and the weight decay make D a positive diagonal."""
    if not float(D.min()) > 0:
        raise CurvatureError(
            "damping plus weight decay is 0 for some parameter: the matrix is singular; give a damping above 0"
        )


class DiagonalPlusRows:
    """A = D + RᵀR, through a factorisation of K = R D⁻¹ Rᵀ.

    solve         A⁻¹ = D⁻¹ − D⁻¹Rᵀ(I + K)⁻¹RD⁻¹ (Woodbury)
    square roots  A = EEᵀ with E = D^{1/2}(I + R̂ᵀR̂)^{1/2}, R̂ = RD^{-1/2}; with K = Uᵀ diag(s) U,
                  (I + R̂ᵀR̂)^{∓1/2} = I ∓ R̂ᵀUᵀ diag(g) U R̂, where g = 1/(1 + √(1+s)), over √(1+s) for the inverse
                  (no division by s, which may vanish); these need the spectral factorisation

    Each is one push and one pull of the vectors, 4·N·q flops a vector, besides 4·N² in the dual.
    """

    def __init__(self, rows: RowsLike, D: Tensor, dual: Spectral | Cholesky):
        self.rows, self.D, self.dual = rows, D, dual
        self._root = D.sqrt()

    def product(self, V: Tensor) -> Tensor:
        """A v_k: [K, q] → [K, q]."""
        return self.rows.pull(self.rows.push(V)) + V * self.D

    def solve(self, B: Tensor) -> Tensor:
        """A⁻¹ b_k."""
        B = B / self.D
        return B - self.rows.pull(self.dual.solve(self.rows.push(B))) / self.D

    def whiten(self, B: Tensor) -> Tensor:
        """E⁻¹ b_k."""
        return self._inverse_root(B / self._root)

    def unwhiten(self, V: Tensor) -> Tensor:
        """E⁻ᵀ v_k."""
        return self._inverse_root(V) / self._root

    def restore(self, V: Tensor) -> Tensor:
        """E v_k."""
        dual = self.dual.function(lambda s: 1 / (1 + (1 + s).sqrt()), self.rows.push(V / self._root))
        return V * self._root + self.rows.pull(dual)

    def _inverse_root(self, V: Tensor) -> Tensor:
        dual = self.dual.function(
            lambda s: 1 / ((1 + s).sqrt() * (1 + (1 + s).sqrt())), self.rows.push(V / self._root)
        )
        return V - self.rows.pull(dual) / self._root
