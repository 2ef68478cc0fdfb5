"""The pseudo-inverse on a curvature's leading eigen-directions, by products alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..kept import Tensors
from .base import FittedInverse, Inverse, Relative, check_count, check_rank, check_tol, right_hand_sides
from .certificate import Certificate, Solution, judge
from .krylov import block_lanczos
from .memory import require_memory
from .negative import check_negative, refuse_negative
from .products import Products, rounding

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
LARGEST_BLOCK = 16


class Lanczos(Inverse):
    """H⁺ = Vᵀ diag(h) V on the `rank` eigen-directions v_i of C + diag δ with the largest |θ|, h = 1/θ.

    TLXML's projection on non-flat directions (arXiv 2501.14271) where the matrix is too large for `Dense(rank=…)`,
    with which it agrees. Block Lanczos with full reorthogonalisation and thick restarts, until every ‖Av_i − θ_iv_i‖
    is at most tol·|θ_i|, which one more pass then measures.

    rank               directions; refused above the numerical rank
    negative           what becomes of those with θ < 0: "drop" h = 0; "keep" h = 1/θ; "abs" h = 1/|θ|; "error"
    tol                unless given 1e-8 where tasks are computed in float64, 1e-3 in float32
    max_iter           passes over the tasks
    allow_unconverged  warn of directions that do not reach tol, and go on
    seed               of the starting block

    A pass has min(16, rank) vectors; (2·rank + 64)·q·8 bytes. Solving takes no pass: the residual ‖Ax − b‖/‖b‖ of the
    certificate is bounded by those of the directions, and includes the part of b outside them, so it is not judged.
    Of eigenvalues more than 16-fold it may miss copies. (Golub and Underwood 1977; Wu and Simon 2000.)
    """

    name = "Lanczos"

    def __init__(
        self,
        rank: int,
        negative: str = "drop",
        tol: float | None = None,
        max_iter: int = 300,
        allow_unconverged: bool = False,
        seed: int = 0,
    ):
        check_rank(rank)
        check_negative(negative)
        check_count("max_iter", max_iter)
        if tol is not None:
            check_tol(tol)
        self.rank, self.negative, self.tol, self.max_iter = rank, negative, tol, max_iter
        self.allow_unconverged, self.seed = allow_unconverged, seed

    def fit(self, operator: CurvatureOperator) -> FittedLanczos:
        """The leading eigen-directions."""
        rank, q, tol = self.rank, operator.q, self.tol or TOLERANCE[operator.dtype]
        if rank > q:
            raise CurvatureError(f"rank is {rank}, and there are {q} meta-parameters")
        block = min(LARGEST_BLOCK, rank)
        if self.max_iter * block < rank:
            raise CurvatureError(f"{self.max_iter} passes of {block} vectors cannot give {rank} directions")
        basis = min(q, 2 * rank + 4 * block)
        require_memory(
            8 * (basis + rank) * q, f"Lanczos of rank {rank:,} for {q:,} meta-parameters", operator.device
        )
        products, noise = Products(operator), rounding(operator)
        floor = 10 * noise  # of a residual, relative to the largest |θ|
        settings = {"rank": rank, "tol": tol, "max_iter": self.max_iter, "seed": self.seed}

        def compute() -> Tensors:
            ritz = block_lanczos(
                products,
                q,
                rank,
                lambda theta: theta.abs().argsort(descending=True, stable=True),
                tol=lambda theta: tol * theta.abs() / 2 + floor * theta.abs().max(),
                negligible=noise,
                block=block,
                largest_basis=basis,
                most_passes=self.max_iter,
                seed=self.seed,
                device=operator.device,
                checkpoints=products.checkpoints("lanczos", settings),
            )
            return {"values": ritz.values, "vectors": ritz.vectors}

        found = products.once("lanczos", settings, compute)
        theta, V = found["values"], found["vectors"]
        numerical = int((theta.abs() > noise * theta.abs().max()).sum())
        if numerical < rank:
            raise CurvatureError(f"rank is {rank}, and only {numerical} eigenvalues are not zero to rounding")
        negative = theta < 0
        if self.negative == "error":
            refuse_negative(theta, negative)

        passes = products.passes

        def measure() -> Tensors:
            return {"norms": (products(V) - theta[:, None] * V).norm(dim=1)}

        residuals = products.once("lanczos-residuals", settings, measure)["norms"]
        certificate = Certificate(
            tuple((residuals / theta.abs()).tolist()),
            0.0,
            float(theta.max()),
            float(theta.min()) if negative.any() else None,
            iterations=passes,
            passes=products.passes,
            tol=tol,
            converged=bool((residuals <= tol * theta.abs() + 2 * floor * theta.abs().max()).all()),
        )
        judge(
            certificate,
            self.allow_unconverged,
            "raise max_iter or tol, or take fewer directions",
            "eigen-directions",
        )
        h = 1 / (theta.abs() if self.negative == "abs" else theta)
        if self.negative == "drop":
            h = torch.where(negative, torch.zeros_like(h), h)
        if not h.any():
            raise CurvatureError("no eigenvalue is left to invert")
        return FittedLanczos(theta, V, residuals, h, certificate, products)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {
            "inverse": self.name,
            "rank": self.rank,
            "negative": self.negative,
            "tol": self.tol,
            "max_iter": self.max_iter,
            "allow_unconverged": self.allow_unconverged,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FittedLanczos(FittedInverse):
    """Eigenpairs in the order of |θ|, and what stands for 1/θ."""

    eigenvalues: Tensor
    vectors: Tensor
    ritz_residuals: Tensor
    h: Tensor
    directions: Certificate
    """Of the eigenpairs: residuals ‖Av_i − θ_iv_i‖/|θ_i|."""
    products: Products

    def solve(self, B: Tensor) -> Solution:
        """Σ h_i (v_i·b) v_i; no pass."""
        B = right_hand_sides(B, self.vectors.shape[1])
        coefficients = (B @ self.vectors.mT) * self.h
        sign = torch.where(self.h * self.eigenvalues < 0, -1.0, 1.0)
        R = B - (coefficients * self.eigenvalues * sign) @ self.vectors
        size = R.norm(dim=1) + coefficients.abs() @ self.ritz_residuals
        norms = B.norm(dim=1)
        certificate = Certificate(
            tuple(torch.where(norms == 0, norms, size / norms).tolist()),
            0.0,
            self.directions.largest,
            self.directions.smallest,
            float((self.h != 0).sum()),
            exact=False,
            converged=self.directions.converged,
        )
        return Solution(coefficients @ self.vectors, certificate)

    def at(self, damping: float | Relative) -> FittedInverse:
        """Raises CurvatureError: a pseudo-inverse has no damping."""
        raise CurvatureError(
            "Lanczos is a pseudo-inverse and has no damping to change; use Nystrom(rank, damping)"
        )

    def of_rank(self, rank: int) -> FittedLanczos:
        """The pseudo-inverse on the first of the directions that there are."""
        check_rank(rank)
        if rank > len(self.eigenvalues):
            raise CurvatureError(f"rank is {rank}, and {len(self.eigenvalues)} directions were computed")
        h = self.h[:rank]
        if not h.any():
            raise CurvatureError("no eigenvalue is left to invert")
        return replace(
            self,
            eigenvalues=self.eigenvalues[:rank],
            vectors=self.vectors[:rank],
            ritz_residuals=self.ritz_residuals[:rank],
            h=h,
        )

    def describe(self) -> dict[str, Any]:
        """The eigenvalues kept, how well they are known, and what they cost."""
        kept = self.h != 0
        return {
            "eigenvalues": self.eigenvalues.sort().values.tolist(),
            "n_negative": int((self.eigenvalues < 0).sum()),
            "n_kept": int(kept.sum()),
            "condition_number": float(self.h[kept].abs().max() / self.h[kept].abs().min()),
            "worst_ritz_residual": self.directions.worst,
            "converged": self.directions.converged,
            "passes": self.products.passes,
            "vectors": self.products.vectors,
        }
