"""Factorisations of the N × N matrix K = R D⁻¹ Rᵀ that a solve with D + RᵀR comes down to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.linalg
import torch
from torch import Tensor

from ..errors import CurvatureError
from ..profiling import span

# LAPACK's divide and conquer counts its workspace, 2N² numbers, in 32 bits.
LARGEST_EIGH = 32_000


class Spectral:
    """K = Uᵀ diag(s) U, so that any function of K is two products with U.

    Memory: N²·8 bytes kept; while decomposing three times that on the CPU, four on a device. About 9N³ flops.
    """

    def __init__(self, values: Tensor, vectors: Tensor):
        self.values, self.vectors = values, vectors

    @classmethod
    def of(cls, K: Tensor) -> Spectral:
        """The decomposition of K, whose memory is used up. Eigenvalues below 0, which are rounding, become 0."""
        n = len(K)
        if n > LARGEST_EIGH:
            raise CurvatureError(f"an eigendecomposition of {n:,} rows is not offered; use factor='cholesky'")
        _require_finite(K)
        with span("eigendecomposition", 9 * n**3, dtype=K.dtype):
            if K.device.type == "cpu":
                # torch.linalg.eigh would copy K first; the transpose is K, laid out as LAPACK wants it
                values, vectors = scipy.linalg.eigh(
                    K.numpy().T, overwrite_a=True, check_finite=False, driver="evd"
                )
                values, vectors = torch.from_numpy(values), torch.from_numpy(vectors.T)
            else:
                values, vectors = torch.linalg.eigh(K)
                vectors = vectors.mT
        return cls(values.clamp_min(0), vectors)

    def scaled(self, factor: float) -> Spectral:
        """factor·K."""
        return Spectral(self.values * factor, self.vectors)

    def function(self, f: Callable[[Tensor], Tensor], Y: Tensor) -> Tensor:
        """f(K) y_k, [K, N] → [K, N]."""
        k, n = Y.shape
        with span("dual solve", 4 * k * n * n, 8 * (2 * n * n + 4 * k * n), dtype=torch.float64):
            return ((Y @ self.vectors.mT) * f(self.values)) @ self.vectors

    def solve(self, Y: Tensor) -> Tensor:
        """(I + K)⁻¹ y_k."""
        return self.function(lambda s: 1 / (1 + s), Y)


class Cholesky:
    """I + K = LLᵀ: N³/3 flops, and N²·8 bytes, in K's own memory on the CPU."""

    def __init__(self, K: Tensor):
        n = len(K)
        _require_finite(K)
        K.diagonal().add_(1)
        with span("Cholesky factorisation", n**3 / 3, dtype=K.dtype):
            if K.device.type == "cpu":
                self._factor: Any = scipy.linalg.cho_factor(
                    K.numpy().T, lower=True, overwrite_a=True, check_finite=False
                )
            else:
                self._factor = torch.linalg.cholesky(K)

    def solve(self, Y: Tensor) -> Tensor:
        """(I + K)⁻¹ y_k."""
        k, n = Y.shape
        with span("dual solve", 2 * k * n * n, 8 * (n * n + 2 * k * n), dtype=torch.float64):
            if isinstance(self._factor, Tensor):
                return torch.cholesky_solve(Y.mT, self._factor).mT
            solved = scipy.linalg.cho_solve(self._factor, Y.numpy().T, check_finite=False)
            return torch.from_numpy(solved.T)


def _require_finite(K: Tensor) -> None:
    """Raise CurvatureError where a row is not finite, which shows on the diagonal."""
    if not torch.isfinite(K.diagonal()).all():
        raise CurvatureError("the Gram matrix of the curvature's rows is not finite")
