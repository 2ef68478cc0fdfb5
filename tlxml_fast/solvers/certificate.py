"""What a solve is worth: a solution comes with the residual of every right-hand side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import CurvatureError, InfluenceWarning


@dataclass(frozen=True)
class Certificate:
    """How well (A + λ)x_k = b_k was solved for K right-hand sides, A = C + diag δ and λ the damping."""

    residuals: tuple[float, ...]
    """‖(A + λ)x_k − b_k‖ / ‖b_k‖ against the operator itself; 0 where b_k = 0."""
    damping: float
    """λ, absolute."""
    largest: float
    """The largest eigenvalue of A, or its estimate."""
    smallest: float | None = None
    """The smallest; an estimate by Lanczos is not below the true one."""
    effective_rank: float | None = None
    """Σ λ_i/(λ_i + λ) over the eigenvalues of A; where these are not known, by random vectors (`effective_rank`)."""
    effective_rank_error: float | None = None
    """Its standard deviation at most, where it is by random vectors."""
    iterations: int = 0
    """Of conjugate gradients, or of refinement."""
    passes: int = 0
    """Products with the operator or its rows that this solve took, each with a block of vectors."""
    tol: float | None = None
    """What a residual was required to stay below; None where it is not judged."""
    exact: bool = True
    """False where the inverse is an approximation by design, whose residual is reported and not judged."""
    converged: bool = True

    @property
    def worst(self) -> float:
        """The largest residual, NaN if one is; 0 without right-hand sides."""
        return float(np.max(self.residuals, initial=0.0))

    def describe(self) -> dict[str, Any]:
        """JSON."""
        return {**asdict(self), "residuals": list(self.residuals), "worst_residual": self.worst}

    @staticmethod
    def join(parts: Sequence[Certificate]) -> Certificate:
        """The certificate of right-hand sides that one inverse solved in parts, in that order."""
        tols = [part.tol for part in parts if part.tol is not None]
        return replace(
            parts[0],
            residuals=tuple(residual for part in parts for residual in part.residuals),
            iterations=max(part.iterations for part in parts),
            passes=sum(part.passes for part in parts),
            tol=max(tols, default=None),
            converged=all(part.converged for part in parts),
        )


class Solution(NamedTuple):
    """What `FittedInverse.solve` gives."""

    X: Tensor
    """[K, q], float64."""
    certificate: Certificate


def relative_residuals(R: Tensor, B: Tensor) -> Tensor:
    """‖r_k‖/‖b_k‖ of every row, [K]; 0/0 is 0."""
    r, b = R.norm(dim=1), B.norm(dim=1)
    return torch.where(r == 0, torch.zeros_like(r), r / b)


def judge(
    certificate: Certificate, allow_unconverged: bool, advice: str, what: str = "right-hand sides"
) -> None:
    """Raise CurvatureError for a solve that did not converge; warn with InfluenceWarning where that is allowed."""
    if certificate.converged:
        return
    failed = sum(residual > certificate.tol for residual in certificate.residuals)
    message = (
        f"{failed} of {len(certificate.residuals)} {what} did not converge: the worst relative residual is "
        f"{certificate.worst:.1e}, above tol={certificate.tol:.1e}, after {certificate.iterations} iterations; {advice}"
    )
    if not allow_unconverged:
        raise CurvatureError(message)
    warnings.warn(message, InfluenceWarning, stacklevel=4)
