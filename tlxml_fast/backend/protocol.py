"""What a backend is, as types: version 1.

T tasks, n queries, C logits, q meta-parameters, K vectors as rows, M training tasks. Parameters lie in vectors of q in
the order of `learner.parameters()`, flattened and concatenated. Arrays are torch tensors on the learner's device.
Whatever cannot be computed as asked is an exception, never another number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..learners import Learner
from ..task import TaskSet

VERSION = 1


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; what it cannot it refuses when asked.

    devices     types of torch devices
    dtypes      names of what it computes in
    learners    kinds of learners (`learner.kind`)
    losses      names of outer losses (`learner.loss.name`)
    curvatures  of "gauss_newton", "hessian" and "identity", those that `influence` takes
    any_module  whether any torch module will do, or those only that it has a plan for
    """

    version: int
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    learners: tuple[str, ...]
    losses: tuple[str, ...]
    curvatures: tuple[str, ...]
    any_module: bool


@dataclass(frozen=True)
class Certificate:
    """What a solve is worth.

    residuals  ‖(A + λ)x_k − b_k‖/‖b_k‖ of every right-hand side, measured
    damping    λ
    converged  whether all residuals are what the backend promises
    details    JSON
    """

    residuals: tuple[float, ...]
    damping: float
    converged: bool
    details: Mapping[str, Any] = field(default_factory=dict)


class Solved(NamedTuple):
    """x_k = (A + λ)⁻¹ b_k, [K, q], and how well."""

    X: Tensor
    certificate: Certificate


class Scored(NamedTuple):
    """I_perf(i, j), [n_test, M]: negative is helpful; and how well the solves behind it went."""

    values: Tensor
    certificate: Certificate


@runtime_checkable
class LinearizedTasks(Protocol):
    """f_t(ω) and L_t(ω) of T tasks of one shape, with their derivatives; J_t = ∂f_t/∂ω, Λ_t = ∂²L_t/∂f_t²."""

    @property
    def logits(self) -> Tensor:
        """f, [T, n, C]."""

    def losses(self) -> Tensor:
        """L_t, the mean over queries, [T]."""

    def gradients(self) -> Tensor:
        """∇_ω L_t, [T, q]."""

    def jvp(self, V: Tensor) -> Tensor:
        """J_t v_k: [K, q] → [T, K, n, C]."""

    def vjp(self, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: [T, K, n, C] → [T, K, q]."""

    def gnvp(self, V: Tensor, weights: Tensor | None = None) -> Tensor:
        """Σ_t w_t J_tᵀΛ_tJ_t v_k: [K, q] → [K, q]; w_t = 1/T unless given."""

    def hvp(self, V: Tensor, weights: Tensor | None = None) -> Tensor:
        """Σ_t w_t ∇²L_t v_k with the exact Hessian: [K, q] → [K, q]; w_t = 1/T unless given."""


@runtime_checkable
class FittedInfluence(Protocol):
    """A + λ with A = (1/M) Σ_t (J_tᵀΛ_tJ_t or ∇²L_t) + δI at M training tasks, or the identity."""

    def solve(self, B: Tensor) -> Solved:
        """(A + λ)⁻¹ b_k: [K, q] → [K, q]."""

    def scores(self, test_tasks: TaskSet) -> Scored:
        """−∇L_iᵀ (A + λ)⁻¹ ∇L_j of every test task i and training task j, [n_test, M]."""


@runtime_checkable
class Backend(Protocol):
    """What the entry point names: an object with these, and no state that a call leaves behind."""

    name: str

    def capabilities(self) -> Capabilities:
        """What it can do."""

    def linearize(
        self, learner: Learner, tasks: TaskSet, dtype: torch.dtype | None = None
    ) -> LinearizedTasks:
        """The derivatives at the learner's ω, in `dtype`, the parameters' own unless given.

        Raises for tasks of several shapes, and for a learner whose ω is no stationary point (first-order MAML).
        """

    def influence(
        self,
        learner: Learner,
        train_tasks: TaskSet,
        *,
        curvature: str = "gauss_newton",
        damping: float = 1e-3,
        weight_decay: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> FittedInfluence:
        """The curvature at the training tasks, of any shapes, ready to be inverted.

        weight_decay  δ; what the learner's training recorded unless given
        """


def missing(given: object, protocol: type) -> list[str]:
    """What of a protocol an object has not; calls that it delegates are there, which isinstance does not see."""
    named = dict.fromkeys((*protocol.__annotations__, *vars(protocol)))
    return [name for name in named if not name.startswith("_") and not hasattr(given, name)]
