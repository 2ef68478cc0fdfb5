"""The checks: each a function of a backend and a case, which raises Failure with the reason."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...learners import MAML
from ...task import TaskSet
from ..protocol import Backend, FittedInfluence, LinearizedTasks
from .cases import Case

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
"""Of ‖x − truth‖/‖truth‖."""
DAMPING = 0.3

Check = Callable[[Backend, Case], None]


class Failure(Exception):
    """A backend that is wrong, and how."""


def values(backend: Backend, case: Case) -> None:
    """Logits and losses."""
    lin = _linearized(backend, case)
    _equal("logits", lin.logits, case.truth.logits)
    _equal("losses", lin.losses(), case.truth.losses)


def gradients(backend: Backend, case: Case) -> None:
    """∇L_t of every task."""
    _equal("gradients", _linearized(backend, case).gradients(), case.truth.gradients)


def jvp(backend: Backend, case: Case) -> None:
    """J_t v_k for several vectors."""
    V = _vectors(case, 3)
    _equal("jvp", _linearized(backend, case).jvp(V), torch.einsum("tncq,kq->tknc", case.truth.J, V))


def vjp(backend: Backend, case: Case) -> None:
    """J_tᵀ u_tk for several cotangents."""
    T, n, C, _ = case.truth.J.shape
    U = torch.randn(T, 2, n, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _equal("vjp", _linearized(backend, case).vjp(U), torch.einsum("tncq,tknc->tkq", case.truth.J, U))


def gnvp(backend: Backend, case: Case) -> None:
    """Σ w_t J_tᵀΛ_tJ_t v_k, with weights and without."""
    _products("gnvp", _linearized(backend, case).gnvp, case.truth.gauss_newton, case)


def hvp(backend: Backend, case: Case) -> None:
    """Σ w_t ∇²L_t v_k, with weights and without; symmetric where there is no dense truth."""
    lin = _linearized(backend, case)
    if case.exact:
        return _products("hvp", lin.hvp, case.truth.hessian, case)
    V = _vectors(case, 4)
    small = lin.hvp(V) @ V.T
    _equal("vᵀHw and wᵀHv", small, small.T)


def invariance(backend: Backend, case: Case) -> None:
    """The answer does not depend on how many vectors or tasks are asked for at once, nor on their order."""
    lin, V = _linearized(backend, case), _vectors(case, 3)
    together = lin.gnvp(V)
    _equal("gnvp one vector at a time", torch.cat([lin.gnvp(v[None]) for v in V]), together)
    _equal("gnvp of strided vectors", lin.gnvp(V.repeat(1, 2)[:, : V.shape[1]]), together)
    backwards = case.tasks[list(range(len(case.tasks)))[::-1]]
    _equal(
        "gradients of tasks in another order",
        backend.linearize(case.learner(), backwards).gradients(),
        lin.gradients().flip(0),
    )
    alone = [backend.linearize(case.learner(), case.tasks[i : i + 1]).gnvp(V) for i in range(len(case.tasks))]
    _equal("gnvp one task at a time", torch.stack(alone).mean(0), together)


def single(backend: Backend, case: Case) -> None:
    """Everything in float32, to its rounding."""
    lin, V = backend.linearize(case.learner(), case.tasks, torch.float32), _vectors(case, 2)
    found = lin.gnvp(V.float())
    if found.dtype != torch.float32:
        raise Failure(f"gnvp in float32 has dtype {found.dtype}")
    _equal("gnvp in float32", found, _weighted(case.truth.gauss_newton, V, None), torch.float32)
    _equal("gradients in float32", lin.gradients(), case.truth.gradients, torch.float32)


def solve(backend: Backend, case: Case) -> None:
    """(G + δ + λ)⁻¹ b_k, and a certificate that says how well."""
    B, decay = _vectors(case, 2), 0.05
    fitted = backend.influence(case.learner(), case.tasks, damping=DAMPING, weight_decay=decay)
    X, certificate = _fitted(fitted).solve(B)
    A = case.truth.gauss_newton.mean(0)
    A = A + (decay + DAMPING) * torch.eye(len(A), dtype=A.dtype)
    _equal("solve", X, torch.linalg.solve(A, B.T).T)
    if len(certificate.residuals) != len(B) or not certificate.converged:
        raise Failure(f"the certificate of {len(B)} right-hand sides is {certificate}")
    true = ((X.detach().double() @ A.detach() - B).norm(dim=1) / B.norm(dim=1)).max()
    if max(certificate.residuals) < 0.1 * float(true) - 1e-9:
        raise Failure(
            f"the certificate has residuals up to {max(certificate.residuals):.1e}, and they are {true:.1e}"
        )


def scores(backend: Backend, case: Case) -> None:
    """−∇L_iᵀ(A + λ)⁻¹∇L_j for every curvature the backend has: its sign, its scale, test tasks along the rows."""
    tests, g = case.tasks[:2], case.truth.gradients
    eye = torch.eye(g.shape[1], dtype=g.dtype)
    matrices = {"gauss_newton": case.truth.gauss_newton.mean(0) + DAMPING * eye, "identity": eye}
    if case.exact:
        # damped beyond its most negative eigenvalue, so that the inverse is that of a definite matrix
        H = case.truth.hessian.mean(0)
        beyond = DAMPING - min(0.0, float(torch.linalg.eigvalsh((H + H.T) / 2)[0]))
        matrices["hessian"] = H + beyond * eye
    for curvature, A in matrices.items():
        if curvature not in backend.capabilities().curvatures:
            continue
        damping = beyond if curvature == "hessian" else DAMPING
        fitted = _fitted(
            backend.influence(
                case.learner(), case.tasks, curvature=curvature, damping=damping, weight_decay=0.0
            )
        )
        found = fitted.scores(tests)
        _equal(f"scores by {curvature}", found.values, -g[:2] @ torch.linalg.solve(A, g.T))
        if len(found.certificate.residuals) != 2:
            raise Failure(f"the certificate of scores by {curvature} is not of the 2 test tasks")


def leaves_the_module_alone(backend: Backend, case: Case) -> None:
    """Parameters and buffers are what they were, and nothing asks for gradients that did not."""
    learner = case.learner()
    before = {name: t.clone() for name, t in learner.module.state_dict().items()}
    lin = backend.linearize(learner, case.tasks)
    lin.gradients(), lin.gnvp(_vectors(case, 1))
    _fitted(backend.influence(learner, case.tasks, damping=DAMPING)).scores(case.tasks[:1])
    for name, t in learner.module.state_dict().items():
        if not torch.equal(t, before[name]):
            raise Failure(f"the module's {name} has changed")
    if any(p.grad is not None for p in learner.module.parameters()):
        raise Failure("a parameter of the module has a gradient")


def refuses(backend: Backend, case: Case) -> None:
    """What makes no sense is an exception."""
    learner, tasks, q = case.learner(), case.tasks, case.truth.omega.numel()
    lin = _linearized(backend, case)
    _raises("vectors of another length", lambda: lin.gnvp(torch.zeros(1, q + 1, dtype=torch.float64)))
    _raises("one vector that is no row", lambda: lin.jvp(torch.zeros(q, dtype=torch.float64)))
    _raises("no tasks", lambda: backend.linearize(learner, TaskSet([])))
    first = tasks[0]
    fewer = first.replace(query_x=first.query_x[:1], query_y=first.query_y[:1])
    _raises("tasks of two shapes", lambda: backend.linearize(learner, TaskSet([first, fewer])).logits)
    unlabelled = TaskSet([first.replace(query_y=None)])
    _raises(
        "the loss of a task without query labels", lambda: backend.linearize(learner, unlabelled).losses()
    )
    _raises("a curvature that there is not", lambda: backend.influence(learner, tasks, curvature="nonsense"))
    if isinstance(learner, MAML):
        first_order = MAML(learner.module, 0.1, first_order=True, loss=learner.loss.name)
        _raises("first-order MAML", lambda: backend.influence(first_order, tasks))


CHECKS: tuple[Check, ...] = (
    values,
    gradients,
    jvp,
    vjp,
    gnvp,
    hvp,
    invariance,
    single,
    solve,
    scores,
    leaves_the_module_alone,
    refuses,
)


# ---- inside -----------------------------------------------------------------------------------------


def _linearized(backend: Backend, case: Case) -> LinearizedTasks:
    lin = backend.linearize(case.learner(), case.tasks)
    if not isinstance(lin, LinearizedTasks):
        raise Failure(f"linearize gives a {type(lin).__name__}, which lacks calls of LinearizedTasks")
    return lin


def _fitted(fitted: FittedInfluence) -> FittedInfluence:
    if not isinstance(fitted, FittedInfluence):
        raise Failure(f"influence gives a {type(fitted).__name__}, which lacks calls of FittedInfluence")
    return fitted


def _vectors(case: Case, count: int) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.randn(count, case.truth.omega.numel(), generator=g, dtype=torch.float64)


def _weighted(matrices: Tensor, V: Tensor, weights: Tensor | None) -> Tensor:
    w = matrices.new_full((len(matrices),), 1 / len(matrices)) if weights is None else weights
    return V @ torch.einsum("t,tpq->pq", w, matrices).T


def _products(what: str, product: Callable[..., Tensor], matrices: Tensor, case: Case) -> None:
    V, weights = _vectors(case, 3), torch.linspace(-1, 2, len(matrices), dtype=torch.float64)
    _equal(what, product(V), _weighted(matrices, V, None))
    _equal(f"{what} with weights", product(V, weights), _weighted(matrices, V, weights))


def _equal(what: str, found: Tensor, truth: Tensor, dtype: torch.dtype = torch.float64) -> None:
    if found.shape != truth.shape:
        raise Failure(f"{what}: shape {tuple(found.shape)}, not {tuple(truth.shape)}")
    found, truth = found.detach().double(), truth.detach()
    error = float((found - truth).norm() / truth.norm().clamp_min(1e-30))
    if not error <= TOLERANCE[dtype]:
        raise Failure(f"{what}: relative error {error:.1e}, above {TOLERANCE[dtype]:.0e}")


def _raises(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:
        return
    raise Failure(f"{what} is accepted")
