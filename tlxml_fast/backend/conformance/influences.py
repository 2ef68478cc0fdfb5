"""Checks of `influence`: each a function of a backend and a case, which raises Failure with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..protocol import Backend, FittedInfluence, Solved, missing
from .cases import Case
from .comparing import TOLERANCE, Failure, certified, equal
from .derivatives import MANY, vectors
from .truth import Truth

DAMPING, DECAY = 0.3, 0.05
CONVERGED = 1e-6
"""No solve with right scores has a larger residual."""


def solve(backend: Backend, case: Case) -> None:
    """(A + λ)⁻¹ b_k by every curvature with the δ given, and a certificate that says how well."""
    for curvature in _curvatures(backend, case):
        A, damping = inverted(curvature, case.truth, DECAY)
        fitted = backend.influence(
            case.learner(), case.tasks, curvature=curvature, damping=damping, weight_decay=DECAY
        )
        _solves(f"solve by {curvature}", fitted, vectors(case, MANY), A, _of(curvature, damping))


def decay(backend: Backend, case: Case) -> None:
    """δ is what the learner's training recorded where none is given, by every curvature."""
    for curvature in _curvatures(backend, case):
        A, damping = inverted(curvature, case.truth, DECAY)
        learner = case.learner()
        learner.weight_decay = DECAY
        fitted = backend.influence(learner, case.tasks, curvature=curvature, damping=damping)
        what = f"solve by {curvature} with the recorded weight decay"
        _solves(what, fitted, vectors(case, 2), A, _of(curvature, damping))


def scores(backend: Backend, case: Case) -> None:
    """−∇L_iᵀ(A + λ)⁻¹∇L_j by every curvature: sign, scale, test tasks along the rows, adapted as in evaluation."""
    for curvature in _curvatures(backend, case):
        A, damping = inverted(curvature, case.truth)
        fitted = checked(
            backend.influence(
                case.learner(), case.tasks, curvature=curvature, damping=damping, weight_decay=0.0
            )
        )
        what, tests = f"scores by {curvature}", case.tasks[:2]
        found = fitted.scores(tests)
        equal(what, found.values, influence_of(A, case.evaluation.gradients[:2], case.truth.gradients))
        certified(what, found.certificate, [(0.0, CONVERGED)] * len(tests), _of(curvature, damping))


def shapes(backend: Backend, case: Case) -> None:
    """Training tasks of two shapes, and test tasks of two shapes in another order."""
    truth, order = case.ragged, list(range(len(case.ragged.tasks)))[::-1]
    A, damping = inverted("gauss_newton", truth)
    fitted = backend.influence(case.learner(), truth.tasks, damping=damping, weight_decay=0.0)
    found = checked(fitted).scores(truth.tasks[order])
    tests = Truth(truth.learner.at_evaluation(), truth.tasks[order]).gradients
    equal("scores of tasks of two shapes", found.values, influence_of(A, tests, truth.gradients))


def single_influence(backend: Backend, case: Case) -> None:
    """(A + λ)⁻¹ b_k in float32, to its rounding."""
    B = vectors(case, 2)
    A, damping = inverted("gauss_newton", case.truth, DECAY)
    fitted = backend.influence(
        case.learner(), case.tasks, damping=damping, weight_decay=DECAY, dtype=torch.float32
    )
    equal("solve in float32", solved(fitted, B).X, torch.linalg.solve(A, B.T).T, TOLERANCE[torch.float32])


def checked(fitted: FittedInfluence) -> FittedInfluence:
    """What `influence` gives, which has every call."""
    if lacks := missing(fitted, FittedInfluence):
        raise Failure(f"influence gives a {type(fitted).__name__}, which has no {', '.join(lacks)}")
    return fitted


def solved(fitted: FittedInfluence, B: Tensor) -> Solved:
    """What `solve` gives, which is named."""
    found = checked(fitted).solve(B)
    if lacks := missing(found, Solved):
        raise Failure(f"solve gives a {type(found).__name__}, which has no {', '.join(lacks)}: a Solved has")
    return found


def inverted(curvature: str, truth: Truth, decay: float = 0.0) -> tuple[Tensor, float]:
    """A + λ or the identity, [q, q], and the λ to ask for."""
    eye = torch.eye(truth.omega.numel(), dtype=torch.float64)
    if curvature == "identity":
        return eye, DAMPING
    A = getattr(truth, curvature).mean(0).detach()
    A = (A + A.T) / 2
    # damped beyond its most negative eigenvalue, so that the inverse is that of a definite matrix
    damping = DAMPING - min(0.0, float(torch.linalg.eigvalsh(A)[0]))
    return A + (decay + damping) * eye, damping


def influence_of(A: Tensor, tests: Tensor, train: Tensor) -> Tensor:
    """−∇L_iᵀA⁻¹∇L_j, [n_test, M]."""
    return -tests @ torch.linalg.solve(A, train.T)


# ---- inside -----------------------------------------------------------------------------------------


def _curvatures(backend: Backend, case: Case) -> Iterator[str]:
    """Those that the backend has, and whose truth the case has."""
    for curvature in ("gauss_newton", "hessian", "identity"):
        if curvature in backend.capabilities().curvatures and (curvature != "hessian" or case.exact):
            yield curvature


def _of(curvature: str, damping: float) -> float | None:
    """What a certificate must call λ; the identity is not damped, and its certificate may say so or repeat λ."""
    return None if curvature == "identity" else damping


def _solves(what: str, fitted: FittedInfluence, B: Tensor, A: Tensor, damping: float | None) -> None:
    X, certificate = solved(fitted, B)
    equal(what, X, torch.linalg.solve(A, B.T).T)
    residuals = ((X.detach().double() @ A - B).norm(dim=1) / B.norm(dim=1)).tolist()
    certified(what, certificate, [(r / 2, 2 * r) for r in residuals], damping)
