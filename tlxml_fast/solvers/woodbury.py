"""The exact inverse of a curvature that is known by rows fewer than its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from .base import (
    FittedInverse,
    Inverse,
    Relative,
    absolute,
    check_damping,
    check_tol,
    describe_damping,
    right_hand_sides,
)
from .certificate import Certificate, Solution, judge, relative_residuals
from .dual import Cholesky, Spectral
from .effective import effective_rank
from .low_rank import DiagonalPlusRows, RowsLike, require_positive, uniform, weighted_gram
from .memory import require_memory
from .spectrum import Extremes, extreme_eigenvalues

FACTORS = ("auto", "eigh", "cholesky")
# Above so many rows an eigendecomposition takes half an hour on two cores, and a Cholesky factorisation a minute.
MOST_EIGH = 10_000
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
MOST_REFINEMENTS = 20


class Woodbury(Inverse):
    """(RᵀR + D)⁻¹ = D⁻¹ − D⁻¹Rᵀ(I + RD⁻¹Rᵀ)⁻¹RD⁻¹ for C = RᵀR of N rows, with D = diag δ + damping.

    damping            a number, or Relative(fraction) of the largest eigenvalue of C + diag δ
    tol                every solution is refined until its relative residual is below; unless given 1e-10 where tasks
                       are computed in float64 and 1e-6 in float32, or 100·ε·κ in float64 where that is more
    factor             "eigh": one eigendecomposition of RRᵀ serves every damping; 9N³ flops, 24N² bytes.
                       "cholesky": N³/3 flops, 8N² bytes, one factorisation a damping. "auto": "eigh" up to 10,000
                       rows, where the weight decay is uniform; Cholesky else
    allow_unconverged  warn of right-hand sides that do not reach tol, and go on

    Exact, for N > q too. Of weight decay that differs between parameters, RD⁻¹Rᵀ depends on the damping: it is formed,
    N²q flops, and factored by Cholesky's method for each. A solve is 4Nq + 4N² flops a
    right-hand side and as many for its residual, each refinement as many again; 5q·8 bytes a right-hand side.

    Raises CurvatureError for a curvature without rows (Hessian), damping + δ = 0, and what does not fit in memory.
    (Woodbury 1950; Hager, Updating the inverse of a matrix, SIAM Review 1989.)
    """

    name = "Woodbury"
    by_rows = True

    def __init__(
        self,
        damping: float | Relative,
        tol: float | None = None,
        factor: str = "auto",
        allow_unconverged: bool = False,
    ):
        check_damping(damping)
        if tol is not None:
            check_tol(tol)
        if factor not in FACTORS:
            raise CurvatureError(f"factor is one of {', '.join(FACTORS)}, not {factor!r}")
        self.damping, self.tol, self.factor = damping, tol, factor
        self.allow_unconverged = allow_unconverged

    def fit(self, operator: CurvatureOperator) -> FittedWoodbury:
        """The Gram matrix of the rows, factored."""
        decay = operator.decay
        if not isinstance(self.damping, Relative):
            require_positive(decay + self.damping)
        rows = operator.rows()
        same = uniform(decay)
        if self.factor == "eigh" and not same:
            raise CurvatureError(
                "the weight decay differs between parameters, which factor='eigh' is not for; use 'cholesky'"
            )
        spectral = self.factor == "eigh" or (self.factor == "auto" and same and rows.N <= MOST_EIGH)
        copies = (3 if decay.device.type == "cpu" else 4) if spectral else 1
        require_memory(8 * copies * rows.N**2, f"Woodbury for {rows.N:,} rows", decay.device)
        system = _System(self, rows, decay, operator)
        return system.spectral(self.damping) if spectral else system.cholesky(self.damping)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {
            "inverse": self.name,
            "damping": describe_damping(self.damping),
            "tol": self.tol,
            "factor": self.factor,
            "allow_unconverged": self.allow_unconverged,
        }


@dataclass(frozen=True)
class _System:
    """Rows and weight decay, from which the inverse for a damping is made."""

    inverse: Woodbury
    rows: RowsLike
    decay: Tensor
    operator: CurvatureOperator

    def spectral(self, damping: float | Relative, gram: Spectral | None = None) -> FittedWoodbury:
        """From the eigendecomposition of RRᵀ, given or made now."""
        if gram is None:
            gram = Spectral(**self.operator.factored("woodbury", self._decomposed))
        delta, q = float(self.decay[0]), len(self.decay)
        eigenvalues = gram.values.flip(0)[:q] + delta
        largest = float(eigenvalues[0]) if len(eigenvalues) else delta
        value = absolute(damping, largest)
        D = self.decay + value
        require_positive(D)
        rest = q - len(eigenvalues)
        effective = float((eigenvalues / (eigenvalues + value)).sum()) + rest * delta / (delta + value)
        smallest = delta if rest else float(eigenvalues[-1])
        solver = DiagonalPlusRows(self.rows, D, gram.scaled(1 / (delta + value)))
        return FittedWoodbury(self, solver, value, largest, smallest, effective, None, gram)

    def _decomposed(self) -> dict[str, Tensor]:
        made = Spectral.of(self.rows.gram())
        return {"values": made.values, "vectors": made.vectors}

    @cached_property
    def ends(self) -> Extremes:
        """Of the spectrum, by products of the rows; the same for every damping."""
        return extreme_eigenvalues(_ByRows(self.rows, self.operator))

    def cholesky(self, damping: float | Relative) -> FittedWoodbury:
        """From a factorisation for this damping; the ends of the spectrum by Lanczos."""
        ends = self.ends
        value = absolute(damping, ends.size)
        D = self.decay + value
        require_positive(D)
        solver = DiagonalPlusRows(self.rows, D, Cholesky(weighted_gram(self.rows, D)))
        found = effective_rank(solver.solve, value, len(D), D.device)
        return FittedWoodbury(self, solver, value, ends.largest, ends.smallest, *found, None)


class _ByRows:
    """The operator's product by its rows rather than by a pass over the tasks."""

    def __init__(self, rows: RowsLike, operator: CurvatureOperator):
        self.rows, self.decay = rows, operator.decay
        self.q, self.dtype, self.device = operator.q, operator.dtype, operator.decay.device

    def product(self, V: Tensor) -> Tensor:
        return self.rows.pull(self.rows.push(V)) + V * self.decay


@dataclass(frozen=True)
class FittedWoodbury(FittedInverse):
    """(RᵀR + D)⁻¹, factored in the dual."""

    system: _System
    solver: DiagonalPlusRows
    damping: float
    largest: float
    smallest: float
    effective_rank: float
    effective_rank_error: float | None
    gram: Spectral | None
    """Of RRᵀ, which serves every damping; None after a Cholesky factorisation."""

    @property
    def tol(self) -> float:
        """What the relative residual of a solution must stay below."""
        condition = (self.largest + self.damping) / float(self.solver.D.min())
        attainable = 100 * torch.finfo(torch.float64).eps * condition
        return self.system.inverse.tol or max(TOLERANCE[self.system.operator.dtype], attainable)

    def solve(self, B: Tensor) -> Solution:
        """x = A⁻¹b, then x ← x + A⁻¹(b − Ax) for those rows whose residual exceeds tol, as long as that halves it."""
        B = right_hand_sides(B, len(self.solver.D))
        X = self.solver.solve(B)
        R = B - self.solver.product(X)
        residuals = relative_residuals(R, B)
        steps, active = 0, (residuals > self.tol).nonzero()[:, 0]
        while len(active) and steps < MOST_REFINEMENTS:
            steps += 1
            tried = X[active] + self.solver.solve(R[active])
            left = B[active] - self.solver.product(tried)
            now = relative_residuals(left, B[active])
            better = now < residuals[active]
            halved = now < residuals[active] / 2
            X[active[better]], R[active[better]] = tried[better], left[better]
            residuals[active[better]] = now[better]
            active = active[halved & (now > self.tol)]
        certificate = Certificate(
            tuple(residuals.tolist()),
            self.damping,
            self.largest,
            self.smallest,
            self.effective_rank,
            self.effective_rank_error,
            iterations=steps,
            passes=2 + 2 * steps,
            tol=self.tol,
            converged=bool((residuals <= self.tol).all()),
        )
        judge(certificate, self.system.inverse.allow_unconverged, "raise the damping, or give a larger tol")
        return Solution(X, certificate)

    def at(self, damping: float | Relative) -> FittedWoodbury:
        """Another damping: from the same eigendecomposition, or a new Cholesky factorisation."""
        check_damping(damping)
        if self.gram is not None:
            return self.system.spectral(damping, self.gram)
        return self.system.cholesky(damping)

    def describe(self) -> dict[str, Any]:
        """The spectrum, what was factored, and what it served."""
        least = float(self.solver.D.min())
        return {
            "rows": self.solver.rows.N,
            "factor": "eigh" if self.gram is not None else "cholesky",
            "serves": "every damping" if self.gram is not None else "one damping",
            "largest": self.largest,
            "smallest": self.smallest,
            "condition_number": (self.largest + self.damping) / max(least, self.smallest + self.damping),
            "effective_rank": self.effective_rank,
            "damping": self.damping,
            "tol": self.tol,
        }
