"""The inverse by conjugate gradients: products only, to any accuracy the products have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..kept import Tensors
from .base import (
    FittedInverse,
    Inverse,
    Relative,
    absolute,
    check_count,
    check_damping,
    check_tol,
    describe_damping,
    right_hand_sides,
)
from .block_cg import Run, block_cg
from .certificate import Certificate, Solution, judge, relative_residuals
from .effective import PROBE_TOL, Estimate, effective_rank
from .memory import require_memory
from .preconditioners import NAMED, FittedPreconditioner, NoPreconditioner, Preconditioner, Split
from .products import Products, rounding
from .spectrum import Extremes, kept_extremes, refuse_indefinite

# Blocks of [K, q] that a solve holds.
BLOCKS = 10
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}


class CG(Inverse):
    """(C + diag δ + damping)⁻¹b_k by block conjugate gradients over all right-hand sides.

    One product of at most K vectors an iteration, which is one pass over the tasks for all of them. Preconditioned by
    M = EEᵀ it iterates with E⁻¹AE⁻ᵀ, and stops by the residuals of A itself. The last pass computes these anew; where
    they exceed tol, as rounding may cause, it starts again from them, as long as that halves them.

    damping            a number, or Relative(fraction) of the largest |eigenvalue| of C + diag δ
    tol                ‖(C + diag δ + damping)x − b‖ ≤ tol·‖b‖ for every right-hand side; unless given 1e-6 where tasks
                       are computed in float64 and 1e-4 in float32
    max_iter           iterations of one solve, all its starts together
    preconditioner     None, "diagonal", "nystrom", or Diagonal(…), NystromPreconditioner(…), Sketch(Fisher(8)), …
    allow_unconverged  warn of right-hand sides that do not reach tol, and go on
    seed               of the start of the Lanczos iteration for the ends of the spectrum
    effective_rank     estimate it, by a solve of two vectors to a residual of 10⁻³ that follows the first

    `fit` takes at most 40 passes of 4 vectors for the ends, and what the preconditioner takes. A solve takes about
    √κ/2·ln(2/tol) iterations at a condition number κ after preconditioning, fewer with many right-hand sides. 10Kq·8
    bytes; 14K²q flops an iteration beside the product, so thousands of right-hand sides are better solved in parts.

    Raises CurvatureError for a matrix that is not positive definite, whether the Lanczos iteration or conjugate
    gradients come upon it, with the most negative Ritz value and the damping that would do; and for right-hand sides
    that do not converge. In float32 residuals below about 10⁻⁷κ are out of reach.
    (O'Leary 1980; Dubrulle 2001; Hestenes and Stiefel 1952.)
    """

    name = "CG"

    def __init__(
        self,
        damping: float | Relative,
        tol: float | None = None,
        max_iter: int = 500,
        preconditioner: str | Preconditioner | None = None,
        allow_unconverged: bool = False,
        seed: int = 0,
        effective_rank: bool = True,
    ):
        check_damping(damping)
        if tol is not None:
            check_tol(tol)
        check_count("max_iter", max_iter)
        self.damping, self.tol, self.max_iter = damping, tol, max_iter
        self.preconditioner = _preconditioner(preconditioner)
        self.allow_unconverged, self.seed, self.effective_rank = allow_unconverged, seed, effective_rank

    def fit(self, operator: CurvatureOperator) -> FittedCG:
        """The ends of the spectrum, a refusal where the matrix is seen to be indefinite, and the preconditioner."""
        products = Products(operator)
        ends = kept_extremes(products, self.seed)
        damping = absolute(self.damping, ends.size)
        refuse_indefinite(ends, damping, rounding(operator))
        preconditioner = self.preconditioner.fit(products)
        split = preconditioner.split(operator.decay + damping)
        return FittedCG(self, products, ends, preconditioner, split, damping)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {
            "inverse": self.name,
            "damping": describe_damping(self.damping),
            "tol": self.tol,
            "max_iter": self.max_iter,
            "preconditioner": self.preconditioner.describe(),
            "allow_unconverged": self.allow_unconverged,
            "seed": self.seed,
            "effective_rank": self.effective_rank,
        }


@dataclass(frozen=True)
class FittedCG(FittedInverse):
    """An operator, what is known of its spectrum, and a preconditioner at one damping."""

    inverse: CG
    products: Products
    ends: Extremes
    preconditioner: FittedPreconditioner
    split: Split
    damping: float

    @property
    def tol(self) -> float:
        """What every relative residual must stay below."""
        return self.inverse.tol or TOLERANCE[self.products.operator.dtype]

    def solve(self, B: Tensor) -> Solution:
        """Block conjugate gradients, and a last pass for the residuals."""
        operator, inverse = self.products.operator, self.inverse
        B = right_hand_sides(B, operator.q)
        require_memory(8 * BLOCKS * B.numel(), f"CG for {len(B):,} right-hand sides at once", B.device)
        passes, iterations, starts = self.products.passes, 0, 0
        X, R, scale = torch.zeros_like(B), B, _positive(B.norm(dim=1))
        worst = float((B.norm(dim=1) / scale).max()) if len(B) else 0.0
        while worst > self.tol and iterations < inverse.max_iter:
            run = self._iterated(R, B, self.tol, inverse.max_iter - iterations, starts)
            iterations += run.iterations
            tried = X + self.split.unwhiten(run.X)
            left = B - self._product(tried)
            before, worst = worst, float((left.norm(dim=1) / scale).max())
            if (
                worst < before or not starts
            ):  # an unfinished iterate is nearer than 0, though its residual may be larger
                X, R = tried, left
            if worst > before / 2:
                break
            starts += 1
        residuals = relative_residuals(R, B)
        certificate = Certificate(
            tuple(residuals.tolist()),
            self.damping,
            self.ends.largest,
            self.ends.smallest,
            iterations=iterations,
            passes=self.products.passes - passes,
            tol=self.tol,
            converged=bool((residuals <= self.tol).all()),
        )
        judge(certificate, inverse.allow_unconverged, self._advice(iterations))
        rank, error = self.effective_rank or (None, None)
        return Solution(X, replace(certificate, effective_rank=rank, effective_rank_error=error))

    def at(self, damping: float | Relative) -> FittedCG:
        """Another damping of the same operator, with the same estimates and sketch."""
        check_damping(damping)
        value = absolute(damping, self.ends.size)
        operator = self.products.operator
        refuse_indefinite(self.ends, value, rounding(operator))
        split = self.preconditioner.split(operator.decay + value)
        return FittedCG(self.inverse, self.products, self.ends, self.preconditioner, split, value)

    def describe(self) -> dict[str, Any]:
        """The ends of the spectrum, and the products taken so far."""
        return {
            "largest": self.ends.largest,
            "smallest": self.ends.smallest,
            "damping": self.damping,
            "passes": self.products.passes,
            "vectors": self.products.vectors,
        }

    @cached_property
    def effective_rank(self) -> Estimate | None:
        """By two vectors; None where it was not asked for, or they do not converge."""
        if not self.inverse.effective_rank:
            return None
        settings = {**self.inverse.describe(), "damping": self.damping}
        most, iterations = self.inverse.max_iter, 0

        def solve(Z: Tensor) -> Tensor:
            nonlocal iterations
            run = self._iterated(Z, Z, PROBE_TOL, most)
            iterations = run.iterations
            return self.split.unwhiten(run.X)

        def compute() -> Tensors:
            operator = self.products.operator
            found = effective_rank(solve, self.damping, operator.q, operator.device)
            return {"estimate": torch.tensor([*found, iterations < most], dtype=torch.float64)}

        *found, converged = self.products.once("effective-rank", settings, compute)["estimate"].tolist()
        return Estimate(*found) if converged else None

    def _iterated(self, R: Tensor, B: Tensor, tol: float, most: int, start: int = 0) -> Run:
        """The iteration for right-hand sides R, to residuals relative to B; CurvatureError at negative curvature."""
        scale = _positive(B.norm(dim=1))
        settings = {**self.inverse.describe(), "damping": self.damping, "tol": tol, "start": start}
        run = block_cg(
            self._whitened_product,
            self.split.whiten(R),
            _positive(self.split.whiten(B).norm(dim=1)),
            tol,
            lambda residuals: self.split.restore(residuals).norm(dim=1) / scale,
            most,
            self.products.checkpoints("cg", settings, B, R),
            self._say,
        )
        self._say("")
        if run.negative is not None:
            self._refuse(*run.negative)
        return run

    def _say(self, what: str) -> None:
        self.products.doing = what

    def _product(self, V: Tensor) -> Tensor:
        return self.products(V) + self.damping * V

    def _whitened_product(self, V: Tensor) -> Tensor:
        return self.split.whiten(self._product(self.split.unwhiten(V)))

    def _refuse(self, direction: Tensor, value: float) -> None:
        """Raise CurvatureError where pᵀAp ≤ 0 is more than rounding."""
        p = self.split.unwhiten(direction[None])[0]
        rayleigh = value / float(p @ p)
        if rayleigh < -rounding(self.products.operator) * self.ends.size:
            raise CurvatureError(
                f"the matrix is indefinite at damping {self.damping:.3g}: conjugate gradients met the Ritz value "
                f"{rayleigh - self.damping:.4g}; the damping must be well above {self.damping - rayleigh:.4g}, or the "
                "curvature positive semi-definite, such as GaussNewton()"
            )

    def _advice(self, iterations: int) -> str:
        if iterations >= self.inverse.max_iter:
            plain = isinstance(self.inverse.preconditioner, NoPreconditioner)
            return f"raise max_iter or the damping, or give {'a' if plain else 'another'} preconditioner"
        name = str(self.products.operator.dtype).removeprefix("torch.")
        return (
            f"no more is to be had from products in {name}: raise the damping or tol, or compute in float64"
        )


def _positive(norms: Tensor) -> Tensor:
    return torch.where(norms == 0, torch.ones_like(norms), norms)


def _preconditioner(given: str | Preconditioner | None) -> Preconditioner:
    if given is None:
        return NoPreconditioner()
    if isinstance(given, Preconditioner):
        return given
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]()
    raise CurvatureError(
        f"preconditioner is None, {', '.join(map(repr, NAMED))} or an object such as Sketch(Fisher(8)), not {given!r}"
    )
