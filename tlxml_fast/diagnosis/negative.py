"""Is ω̂ a minimum?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..curvature import CurvatureOperator, Hessian
from ..solvers import FittedInverse
from ..solvers.dense import FittedDense
from ..solvers.spectrum import extreme_eigenvalues
from .check import Check, figure
from .subject import Subject

SMALL = 0.1
TOLERANCE = 1e-2  # of Lanczos: the residual of an end, relative to the largest


def negative_curvature(subject: Subject) -> Check:
    """The lowest eigenvalue of the exact Hessian, weight decay included, against the damping and the largest.

    Good where H + λI is positive definite (−λ_min ≤ λ; of a pseudo-inverse λ is the smallest |eigenvalue| kept): ω̂ is
    then a minimum of what the damped inverse stands for. Doubtful while −λ_min ≤ λ_max/10, an order of magnitude below
    what dominates the objective; bad above.

    All eigenvalues up to 2,000 parameters, above them the two ends by Lanczos, over a sample of the fitted tasks. Its
    λ_min is on average below that of all tasks, as the smallest eigenvalue is concave; vᵀHv with its eigenvector v and
    the H of all tasks is above. What is between the two is doubtful; beyond, the latter is graded.
    """
    ends = _ends(subject)
    lowest, above, M = ends.lowest, ends.lowest, len(subject.train)
    if ends.tasks < M:
        with subject.exactly(range(M)) as operator:
            above = float(ends.vector @ operator.product(ends.vector[None])[0])
    floor = _floor(subject.inverse)
    grade = (
        "good" if lowest >= -floor else "doubtful" if -above <= max(floor, SMALL * ends.largest) else "bad"
    )
    damped = subject.certificate.damping > 0
    inverse = f"is damped by {figure(floor)}" if damped else f"keeps |eigenvalues| from {figure(floor)} on"
    number = (
        f" {ends.count:,} of {subject.q:,} eigenvalues are negative, {ends.share:.1%} of Σ|λ|."
        if ends.count
        else ""
    )
    sample = "" if ends.tasks == M else f", and {figure(above)} along its direction over all {M:,} tasks"
    return Check(
        "negative curvature",
        grade,
        f"Over {ends.tasks:,} tasks the exact Hessian’s lowest eigenvalue is {figure(lowest)}{sample}; the largest is "
        f"{figure(ends.largest)}, and the inverse {inverse}.{number}",
        {
            "lowest": lowest,
            "lowest_over_all": above,
            "largest": ends.largest,
            "floor": floor,
            "negative": ends.count,
            "share_of_spectrum": ends.share,
            "tasks": ends.tasks,
        },
        f"raise the damping above {figure(max(-lowest, 0.0))}, or train further",
    )


@dataclass(frozen=True)
class _Ends:
    """Of the exact Hessian's spectrum over some tasks; number and share of the negative where all are known."""

    lowest: float
    largest: float
    vector: Tensor
    """The lowest eigenvalue's, [q]."""
    tasks: int
    count: int | None = None
    share: float | None = None


def _ends(subject: Subject) -> _Ends:
    own = subject.influence.curvature
    if isinstance(own, Hessian) and isinstance(subject.inverse, FittedDense):
        return _of_all(subject, subject.inverse.eigenvalues, subject.inverse.eigenvectors, len(subject.train))
    with subject.exactly(subject.sample) as operator:
        if subject.all_eigenvalues:
            return _of_all(subject, *torch.linalg.eigh(operator.dense()), len(subject.sample))
        return _by_lanczos(operator, len(subject.sample))


def _of_all(subject: Subject, eigenvalues: Tensor, vectors: Tensor, tasks: int) -> _Ends:
    negative = (eigenvalues < 0) & subject.significant(eigenvalues)
    share = float(eigenvalues[negative].abs().sum() / eigenvalues.abs().sum())
    return _Ends(
        float(eigenvalues[0]), float(eigenvalues[-1]), vectors[:, 0], tasks, int(negative.sum()), share
    )


def _by_lanczos(operator: CurvatureOperator, tasks: int) -> _Ends:
    ends = extreme_eigenvalues(operator, tol=TOLERANCE)
    return _Ends(ends.smallest, ends.largest, ends.direction, tasks)


def _floor(inverse: FittedInverse) -> float:
    """The damping, or the smallest |eigenvalue| that a pseudo-inverse keeps."""
    damping = getattr(inverse, "damping", 0.0)
    if damping or not hasattr(inverse, "h"):
        return damping
    return float(1 / inverse.h.abs().max())
