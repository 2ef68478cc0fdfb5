"""The ends of a curvature's spectrum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..kept import Checkpoints, Tensors
from .krylov import block_lanczos
from .products import Products, rounding

# Vectors in a block, in the basis before a restart, and the most passes.
BLOCK, BASIS, PASSES = 4, 40, 40


@dataclass(frozen=True)
class Extremes:
    """Estimates of the largest and the smallest eigenvalue, each within its residual of a true one."""

    largest: float
    smallest: float
    largest_residual: float
    smallest_residual: float
    direction: Tensor = field(compare=False, repr=False)
    """The Ritz vector of the smallest, [q], float64."""

    @property
    def size(self) -> float:
        """The largest |eigenvalue|."""
        return max(abs(self.largest), abs(self.smallest))


def kept_extremes(products: Products, seed: int) -> Extremes:
    """`extreme_eigenvalues`, read where a store has them, else made with checkpoints there."""

    def compute() -> Tensors:
        checkpoints = products.checkpoints("ends", {"seed": seed})
        found = extreme_eigenvalues(products.operator, products, seed=seed, checkpoints=checkpoints)
        numbers = found.largest, found.smallest, found.largest_residual, found.smallest_residual
        return {"numbers": torch.tensor(numbers, dtype=torch.float64), "direction": found.direction}

    found = products.once("ends", {"seed": seed}, compute)
    return Extremes(*found["numbers"].tolist(), found["direction"])


def extreme_eigenvalues(
    operator: CurvatureOperator,
    products: Products | None = None,
    tol: float = 1e-3,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
) -> Extremes:
    """The largest and smallest eigenvalue of C + diag δ, by block Lanczos.

    Until both residuals are at most tol of the largest |eigenvalue|, in at most 40 passes of 4 vectors. The largest
    then has an error of about tol² of itself, where it is separated; the smallest is an upper bound. Memory: 48 vectors
    of q in float64. `products` counts the passes.
    """
    ritz = block_lanczos(
        products or Products(operator),
        operator.q,
        min(2, operator.q),
        from_both_ends,
        tol=lambda theta: tol * theta.abs().max().expand_as(theta),
        negligible=rounding(operator),
        block=BLOCK,
        largest_basis=BASIS,
        most_passes=PASSES,
        seed=seed,
        device=operator.device,
        checkpoints=checkpoints,
    )
    ends = [
        (float(value), float(residual)) for value, residual in zip(ritz.values, ritz.residuals, strict=True)
    ]
    (largest, above), (smallest, below) = max(ends), min(ends)
    return Extremes(largest, smallest, above, below, ritz.vectors[int(ritz.values.argmin())])


def from_both_ends(theta: Tensor) -> Tensor:
    """Indices of ascending eigenvalues: the last, the first, the last but one, the second …"""
    m = len(theta)
    ascending = torch.arange(m, device=theta.device)
    return torch.stack([ascending.flip(0), ascending], dim=1).flatten()[:m]


def refuse_indefinite(ends: Extremes, damping: float, rounding: float) -> None:
    """Raise CurvatureError where C + diag δ + damping is seen not to be positive definite."""
    if ends.smallest + damping > rounding * ends.size:
        return
    if ends.smallest < -rounding * ends.size:
        enough = 1.01 * (ends.smallest_residual - ends.smallest)
        raise CurvatureError(
            f"the matrix is indefinite at damping {damping:.3g}: the most negative Ritz value is {ends.smallest:.4g}; "
            f"a damping of {enough:.4g} would do, or a positive semi-definite curvature such as GaussNewton()"
        )
    raise CurvatureError(
        f"the matrix is singular to rounding after damping (an eigenvalue of {ends.smallest + damping:.1e} beside "
        f"one of {ends.largest:.1e}); raise the damping"
    )
