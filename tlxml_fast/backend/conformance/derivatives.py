"""Checks of `linearize`: each a function of a backend and a case, which raises Failure with the reason."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..protocol import Backend, LinearizedTasks, missing
from .cases import Case
from .comparing import TOLERANCE, Failure, equal

MANY = 11
"""Vectors at once: more than one tile of any kernel's, and no multiple of it."""
OF_DIFFERENCES = 1e-7
"""The tolerance where the truth is of finite differences."""


def values(backend: Backend, case: Case) -> None:
    """Logits and losses."""
    lin = linearized(backend, case)
    equal("logits", lin.logits, case.truth.logits)
    equal("losses", lin.losses(), case.truth.losses)


def gradients(backend: Backend, case: Case) -> None:
    """∇L_t of every task."""
    equal("gradients", linearized(backend, case).gradients(), case.truth.gradients)


def jvp(backend: Backend, case: Case) -> None:
    """J_t v_k for many vectors."""
    V = vectors(case, MANY)
    equal("jvp", linearized(backend, case).jvp(V), _forward(case, V))


def vjp(backend: Backend, case: Case) -> None:
    """J_tᵀ u_tk for many cotangents."""
    U = _cotangents(case, MANY)
    equal("vjp", linearized(backend, case).vjp(U), _backward(case, U))


def gnvp(backend: Backend, case: Case) -> None:
    """Σ w_t J_tᵀΛ_tJ_t v_k, with weights and without."""
    _products("gnvp", linearized(backend, case).gnvp, case, _gauss_newton)


def hvp(backend: Backend, case: Case) -> None:
    """Σ w_t ∇²L_t v_k, with weights and without; symmetric too where the truth is of finite differences."""
    lin = linearized(backend, case)
    _products("hvp", lin.hvp, case, _hessian, TOLERANCE[torch.float64] if case.exact else OF_DIFFERENCES)
    if not case.exact:
        V = vectors(case, 4)
        small = lin.hvp(V) @ V.T
        equal("vᵀHw and wᵀHv", small, small.T)


def invariance(backend: Backend, case: Case) -> None:
    """The answer does not depend on how many vectors or tasks are asked for at once, nor on their order."""
    lin, V = linearized(backend, case), vectors(case, 3)
    together = lin.gnvp(V)
    equal("gnvp one vector at a time", torch.cat([lin.gnvp(v[None]) for v in V]), together)
    equal("gnvp of strided vectors", lin.gnvp(V.repeat(1, 2)[:, : V.shape[1]]), together)
    backwards = case.tasks[list(range(len(case.tasks)))[::-1]]
    equal(
        "gradients of tasks in another order",
        backend.linearize(case.learner(), backwards).gradients(),
        lin.gradients().flip(0),
    )
    alone = [backend.linearize(case.learner(), case.tasks[i : i + 1]).gnvp(V) for i in range(len(case.tasks))]
    equal("gnvp one task at a time", torch.stack(alone).mean(0), together)


def single(backend: Backend, case: Case) -> None:
    """Every call in float32, to its rounding."""
    lin = backend.linearize(case.learner(), case.tasks, torch.float32)
    V, U = vectors(case, 2), _cotangents(case, 2)
    for what, found, truth in (
        ("logits", lin.logits, case.truth.logits),
        ("losses", lin.losses(), case.truth.losses),
        ("gradients", lin.gradients(), case.truth.gradients),
        ("jvp", lin.jvp(V.float()), _forward(case, V)),
        ("vjp", lin.vjp(U.float()), _backward(case, U)),
        ("gnvp", lin.gnvp(V.float()), _gauss_newton(case, V).mean(0)),
        ("hvp", lin.hvp(V.float()), _hessian(case, V).mean(0)),
    ):
        if found.dtype != torch.float32:
            raise Failure(f"{what} in float32 has dtype {found.dtype}")
        equal(f"{what} in float32", found, truth, TOLERANCE[torch.float32])


def linearized(backend: Backend, case: Case) -> LinearizedTasks:
    """What `linearize` gives, which has every call."""
    lin = backend.linearize(case.learner(), case.tasks)
    if lacks := missing(lin, LinearizedTasks):
        raise Failure(f"linearize gives a {type(lin).__name__}, which has no {', '.join(lacks)}")
    return lin


def vectors(case: Case, count: int) -> Tensor:
    """[count, q]."""
    g = torch.Generator().manual_seed(2)
    return torch.randn(count, case.truth.omega.numel(), generator=g, dtype=torch.float64)


# ---- inside -----------------------------------------------------------------------------------------


def _cotangents(case: Case, count: int) -> Tensor:
    T, n, C, _ = case.truth.J.shape
    return torch.randn(T, count, n, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _forward(case: Case, V: Tensor) -> Tensor:
    return torch.einsum("tncq,kq->tknc", case.truth.J, V)


def _backward(case: Case, U: Tensor) -> Tensor:
    return torch.einsum("tncq,tknc->tkq", case.truth.J, U)


def _gauss_newton(case: Case, V: Tensor) -> Tensor:
    return torch.einsum("tpq,kq->tkp", case.truth.gauss_newton, V)


def _hessian(case: Case, V: Tensor) -> Tensor:
    return torch.einsum("tpq,kq->tkp", case.truth.hessian, V) if case.exact else case.truth.differences(V)


def _products(
    what: str,
    product: Callable[..., Tensor],
    case: Case,
    of_tasks: Callable[[Case, Tensor], Tensor],
    tolerance: float = TOLERANCE[torch.float64],
) -> None:
    """`of_tasks` gives the truth of every task, [T, K, q]."""
    V, weights = vectors(case, MANY), torch.linspace(-1, 2, len(case.tasks), dtype=torch.float64)
    truth = of_tasks(case, V)
    equal(what, product(V), truth.mean(0), tolerance)
    equal(f"{what} with weights", product(V, weights), torch.einsum("t,tkp->kp", weights, truth), tolerance)
