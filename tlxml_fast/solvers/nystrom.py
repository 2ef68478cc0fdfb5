"""A curvature sketched to low rank by products with random vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..kept import Tensors
from ..profiling import span
from .base import (
    FittedInverse,
    Inverse,
    Relative,
    absolute,
    check_damping,
    check_rank,
    describe_damping,
    right_hand_sides,
)
from .certificate import Certificate, Solution, relative_residuals
from .dual import Spectral
from .effective import effective_rank
from .low_rank import DiagonalPlusRows, Factor, require_positive, uniform, weighted_gram
from .memory import require_memory
from .products import Products, gaussian, generator
from .spectrum import Extremes, kept_extremes


def nystrom_factor(products: Products, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Λ [r], descending, and orthonormal rows U [r, q] with UᵀΛU ≈ C, the curvature without its weight decay.

    With Ω orthonormal rows, Y = CΩ: C_nys = Y(ΩᵀY)⁻¹Yᵀ, shifted by ν before the Cholesky factorisation and back after
    (Frangella, Tropp and Udell, Randomized Nyström preconditioning, SIMAX 2023, algorithm 2.1; Tropp et al. 2017). An
    eigendecomposition takes the place of a Cholesky factorisation that fails. r products, in passes of 256 vectors;
    8r²q flops beside them, 4rq·8 bytes.

    Raises CurvatureError where C is seen not to be positive semi-definite, since the formula then has no meaning.
    """
    operator = products.operator
    random = generator(seed)
    with span("Nyström sketch", 8 * rank**2 * operator.q, dtype=torch.float64):
        omega = torch.linalg.qr(gaussian(rank, operator.q, random, operator.device).mT).Q.mT
        Y = products.without_decay(omega)
        nu = torch.finfo(operator.dtype).eps * float(Y.norm())
        Y = Y + nu * omega
        core = omega @ Y.mT
        core = (core + core.mT) / 2
        L, failed = torch.linalg.cholesky_ex(core)
        if int(failed):
            lowest, G = torch.linalg.eigh(core)
            if float(lowest[0]) < -10 * nu:
                raise CurvatureError(
                    f"a Nyström sketch is of a positive semi-definite curvature, and this one has an eigenvalue below "
                    f"{float(lowest[0]) - nu:.3g}"
                )
            kept = lowest > torch.finfo(torch.float64).eps * rank * lowest[-1].abs()
            F = (G[:, kept] / lowest[kept].sqrt()).mT @ Y
        else:
            F = torch.linalg.solve_triangular(L, Y, upper=False)
        U, sigma, _ = torch.linalg.svd(F.mT, full_matrices=False)
        return (sigma.square() - nu).clamp_min(0), U.mT


def kept_factor(products: Products, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """`nystrom_factor`, read where a store has it."""

    def compute() -> Tensors:
        values, U = nystrom_factor(products, rank, seed)
        return {"values": values, "U": U}

    found = products.once("nystrom", {"rank": rank, "seed": seed}, compute)
    return found["values"], found["U"]


class Nystrom(Inverse):
    """(UᵀΛU + D)⁻¹ with UᵀΛU the randomised Nyström approximation of C of the given rank, D = diag δ + damping.

    Where D is uniform, x = Uᵀ((Λ + D)⁻¹ − D⁻¹)Ub + D⁻¹b: directions the sketch missed are inverted as if they had no
    curvature. A weight decay that differs between parameters stays in D, exact.

    damping  a number, or Relative(fraction) of the largest eigenvalue of C + diag δ
    rank     of the sketch; the error of C is about that of the best approximation of half the rank
    seed     of the sketch

    Costs `rank` products with C, at most 160 more for the ends of the spectrum, and one for every right-hand side, for
    its certificate; 4·rank·q·8 bytes. An approximation by design: residuals against the true operator are reported,
    not judged. Raises CurvatureError for damping + δ = 0, and for a curvature seen not to be positive semi-definite.
    (Frangella, Tropp and Udell, SIMAX 2023.)
    """

    name = "Nystrom"

    def __init__(self, rank: int, damping: float | Relative, seed: int = 0):
        check_rank(rank)
        check_damping(damping)
        self.rank, self.damping, self.seed = rank, damping, seed

    def fit(self, operator: CurvatureOperator) -> FittedNystrom:
        """Sketch the curvature."""
        if self.rank > operator.q:
            raise CurvatureError(f"rank is {self.rank}, and there are {operator.q} meta-parameters")
        if not isinstance(self.damping, Relative):
            require_positive(operator.decay + self.damping)
        require_memory(
            32 * self.rank * operator.q,
            f"Nystrom of rank {self.rank:,} for {operator.q:,} meta-parameters",
            operator.device,
        )
        products = Products(operator)
        ends = kept_extremes(products, self.seed)
        values, U = kept_factor(products, self.rank, self.seed)
        return _with_damping(self, products, ends, values, U, self.damping)

    def describe(self) -> dict[str, Any]:
        """The settings; JSON."""
        return {
            "inverse": self.name,
            "damping": describe_damping(self.damping),
            "rank": self.rank,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FittedNystrom(FittedInverse):
    """The sketch's eigenvalues and vectors, and the solver made of them for one damping."""

    inverse: Nystrom
    products: Products
    ends: Extremes
    values: Tensor
    U: Tensor
    solver: DiagonalPlusRows
    damping: float
    effective_rank: float
    effective_rank_error: float | None

    def solve(self, B: Tensor) -> Solution:
        """The sketch's inverse, and one pass over the tasks to certify it."""
        B = right_hand_sides(B, self.products.operator.q)
        X = self.solver.solve(B)
        R = B - self.products(X) - self.damping * X if len(B) else B
        certificate = Certificate(
            tuple(relative_residuals(R, B).tolist()),
            self.damping,
            self.ends.largest,
            self.ends.smallest,
            self.effective_rank,
            self.effective_rank_error,
            passes=1,
            exact=False,
        )
        return Solution(X, certificate)

    def at(self, damping: float | Relative) -> FittedNystrom:
        """Another damping, from the same sketch."""
        check_damping(damping)
        return _with_damping(self.inverse, self.products, self.ends, self.values, self.U, damping)

    def describe(self) -> dict[str, Any]:
        """The sketch's spectrum, and what it cost."""
        return {
            "sketched_eigenvalues": self.values.tolist(),
            "largest": self.ends.largest,
            "smallest": self.ends.smallest,
            "effective_rank": self.effective_rank,
            "damping": self.damping,
            "passes": self.products.passes,
            "vectors": self.products.vectors,
        }


def _with_damping(
    inverse: Nystrom,
    products: Products,
    ends: Extremes,
    values: Tensor,
    U: Tensor,
    damping: float | Relative,
) -> FittedNystrom:
    decay = products.operator.decay
    value = absolute(damping, ends.size)
    D = decay + value
    require_positive(D)
    rows = Factor(values.sqrt()[:, None] * U)
    solver = DiagonalPlusRows(rows, D, Spectral.of(weighted_gram(rows, D)))
    if uniform(decay):
        delta = float(decay[0])
        effective, error = float(((values + delta) / (values + delta + value)).sum()), None
        effective += (len(decay) - len(values)) * delta / (delta + value)
    else:
        effective, error = effective_rank(solver.solve, value, len(decay), decay.device)
    return FittedNystrom(inverse, products, ends, values, U, solver, value, effective, error)
