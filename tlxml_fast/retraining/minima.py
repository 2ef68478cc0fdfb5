"""Minimisation to a small gradient: quasi-Newton, then products with the Hessian where that stalls."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import scipy.optimize
import torch
from scipy.sparse.linalg import LinearOperator, minres
from torch import Tensor

from ..errors import TlxError

HISTORY = 30
TRUST_STEPS, NEWTON_STEPS = 100, 10
# Values nearer than this count as equal: losses are of order 1, and those of large ones nearer than this share.
ROUNDING = 1e-13
# Below this share of the largest |eigenvalue| a direction is not stretched further: where a function is flat, its
# quadratic model reaches no farther than elsewhere, and long first steps cost evaluations.
FLAT = 1e-2


class Smooth(Protocol):
    """A twice differentiable function of ω [q], float64."""

    def value_and_gradient(self, omega: Tensor) -> tuple[float, Tensor]:
        """L(ω) and ∇L(ω), [q]."""

    def hvp(self, omega: Tensor, V: Tensor) -> Tensor:
        """∇²L(ω) v_k, or something near it: [K, q] → [K, q]."""


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended."""

    omega: Tensor
    value: float
    gradient_norm: float
    evaluations: int
    """Of the value with its gradient."""
    products: int
    """With the Hessian: 0 unless quasi-Newton steps stalled."""
    converged: bool
    """Whether the gradient norm is within the tolerance."""


def minimise(
    objective: Smooth,
    start: Tensor,
    tol: float = 1e-6,
    *,
    max_evaluations: int = 10_000,
    scaling: Tensor | None = None,
    strict: bool = True,
) -> Minimum:
    """A point with ‖∇L‖₂ ≤ tol, downhill from `start` [q].

    L-BFGS (Liu and Nocedal 1989; scipy's), stopped as soon as the gradient is small enough. Where it ends before that,
    for rounding of L hides descent where the gradient is below about √(10⁻¹⁶ L κ), Newton steps with Hessian products,
    judged by the gradient; and if these do not help a trust region (Steihaug 1983; scipy's), which leaves saddles.

    scaling  S [q, q]: L-BFGS runs over z, ω = start + S z. `whitening` of the Hessian near the minimum makes all
             directions equally steep, which saves most of the evaluations. The minimum is of the same L
    strict   raise TlxError where the tolerance was not reached; else the result says so

    Raises TlxError if L is not finite at the start.
    """
    counted = _Counted(objective, tol, max_evaluations)
    start = start.detach().double().cpu()
    if not np.isfinite(counted(start.numpy())[0]):
        raise TlxError("the objective is not finite where its minimisation starts")
    first = partial(_quasi_newton, start=start.numpy(), scaling=scaling)
    for phase in (first, _newton, _trust_region, _newton):
        if not counted.done:
            phase(counted)
    found = counted.result()
    if strict and not found.converged:
        raise TlxError(
            f"minimisation ended at a gradient norm of {found.gradient_norm:.2e}, above {tol:.0e}, after "
            f"{found.evaluations} evaluations and {found.products} Hessian products"
        )
    return found


def whitening(H: Tensor) -> Tensor:
    """|H|^{-1/2} of a symmetric matrix [q, q], float64, |λ| at least a hundredth of the largest."""
    eigenvalues, Q = torch.linalg.eigh(H.double())
    size = eigenvalues.abs()
    return (Q / size.clamp_min(FLAT * float(size.max())).sqrt()) @ Q.mT


class _Stop(Exception):
    """The gradient is small enough, or the evaluations are spent."""


class _Counted:
    """The objective as scipy calls it; remembers the lowest point, of equal ones that of the smallest gradient."""

    def __init__(self, objective: Smooth, tol: float, limit: int):
        self.objective, self.tol, self.limit = objective, tol, limit
        self.evaluations = self.products = 0
        self.value = self.norm = float("inf")
        self.lowest = np.empty(0)

    @property
    def done(self) -> bool:
        return self.norm <= self.tol or self.evaluations >= self.limit

    def __call__(self, omega: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective.value_and_gradient(torch.from_numpy(omega.copy()))
        self.evaluations += 1
        gradient = gradient.numpy()
        norm = float(np.linalg.norm(gradient))
        if self._better(value, norm):
            self.value, self.norm, self.lowest = value, norm, omega.copy()
        return value, gradient

    def or_stop(self, omega: np.ndarray) -> tuple[float, np.ndarray]:
        found = self(omega)
        if self.done:
            raise _Stop
        return found

    def hessp(self, omega: np.ndarray, v: np.ndarray) -> np.ndarray:
        self.products += 1
        V = torch.from_numpy(np.array(v, dtype=float))[None]
        return self.objective.hvp(torch.from_numpy(omega.copy()), V)[0].numpy()

    def result(self) -> Minimum:
        omega = torch.from_numpy(self.lowest)
        return Minimum(omega, self.value, self.norm, self.evaluations, self.products, self.norm <= self.tol)

    def _better(self, value: float, norm: float) -> bool:
        if not np.isfinite(self.value):
            return np.isfinite(value)
        rounding = ROUNDING * max(1.0, abs(self.value))
        return value < self.value - rounding or (value <= self.value + rounding and norm < self.norm)


def _quasi_newton(counted: _Counted, start: np.ndarray, scaling: Tensor | None) -> None:
    S = None if scaling is None else scaling.double().cpu().numpy()

    def in_scale(z: np.ndarray) -> tuple[float, np.ndarray]:
        if S is None:
            return counted.or_stop(z)
        value, gradient = counted.or_stop(start + S @ z)
        return value, S.T @ gradient

    options = {"maxcor": HISTORY, "maxfun": counted.limit, "maxiter": counted.limit, "ftol": 0, "gtol": 0}
    first = start if S is None else np.zeros_like(start)
    with suppress(_Stop):
        scipy.optimize.minimize(in_scale, first, jac=True, method="L-BFGS-B", options=options)


def _trust_region(counted: _Counted) -> None:
    options = {"gtol": 0.0, "maxiter": TRUST_STEPS}
    with suppress(_Stop):
        scipy.optimize.minimize(
            counted.or_stop,
            counted.lowest,
            jac=True,
            hessp=counted.hessp,
            method="trust-ncg",
            options=options,
        )


def _newton(counted: _Counted) -> None:
    """Steps of −H⁻¹∇L by minimal residuals, while they lead downhill and each makes the gradient much smaller."""
    omega, size = counted.lowest, len(counted.lowest)
    value, gradient = counted(omega)
    for _ in range(NEWTON_STEPS):
        H = LinearOperator((size, size), matvec=partial(counted.hessp, omega), dtype=float)
        step = minres(H, gradient, rtol=1e-6)[0]
        before, norm = value, np.linalg.norm(gradient)
        if not step @ gradient > 0:
            return
        omega = omega - step
        value, gradient = counted(omega)
        falls = value <= before + ROUNDING * max(1.0, abs(before))
        if counted.done or not (falls and np.linalg.norm(gradient) < 0.5 * norm):
            return
