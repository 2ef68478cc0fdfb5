"""The backends that this package brings: the compiled engine, and the reference on torch.func."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import solvers
from ..curvature import Curvature, GaussNewton, Hessian, Identity
from ..errors import CurvatureError
from ..influence import TaskInfluence
from ..learners import MAML, Learner, ProtoNet
from ..linearize import Linearization, linearize
from ..losses import LOSSES
from ..ops._dispatch import backend_of
from ..task import TaskSet
from .protocol import VERSION, Capabilities, Certificate, Scored, Solved

CURVATURES: dict[str, type[Curvature]] = {
    "gauss_newton": GaussNewton,
    "hessian": Hessian,
    "identity": Identity,
}


@dataclass(frozen=True)
class Ours:
    """`linearize` and `TaskInfluence` with the dense inverse, as protocol version 1 has them.

    compiled   the compiled kernels of the learner's device, or an error; else the reference
    """

    name: str
    compiled: bool

    def capabilities(self) -> Capabilities:
        """What can be asked; the compiled kernels need a plan of the module."""
        return Capabilities(
            VERSION,
            ("cpu", "cuda"),
            ("float32", "float64"),
            (MAML.kind, ProtoNet.kind),
            tuple(LOSSES),
            tuple(CURVATURES),
            any_module=not self.compiled,
        )

    def linearize(self, learner: Learner, tasks: TaskSet, dtype: torch.dtype | None = None) -> Linearization:
        """`tlxml_fast.linearize`; BackendError where the compiled kernels cannot run this module."""
        return linearize(learner, tasks, self._backend(learner), dtype, strict=self.compiled)

    def influence(
        self,
        learner: Learner,
        train_tasks: TaskSet,
        *,
        curvature: str = "gauss_newton",
        damping: float = 1e-3,
        weight_decay: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> Fitted:
        """`TaskInfluence` with `Dense(damping, negative="keep")`."""
        if curvature not in CURVATURES:
            raise CurvatureError(f"curvature is one of {', '.join(CURVATURES)}, not {curvature!r}")
        if self.compiled:
            self.linearize(learner, train_tasks[:1], dtype)  # which refuses what would fall back
        inverse = solvers.Dense(damping, negative="keep")
        fitted = TaskInfluence(
            learner, CURVATURES[curvature](), inverse, self._backend(learner), dtype, weight_decay
        )
        return Fitted(fitted.fit(train_tasks))

    def _backend(self, learner: Learner) -> str:
        device = next(iter(learner.parameters().values())).device
        return (backend_of(device) or "auto") if self.compiled else "reference"


@dataclass(frozen=True)
class Fitted:
    """A fitted `TaskInfluence` in the protocol's words."""

    influence: TaskInfluence

    def solve(self, B: Tensor) -> Solved:
        """(A + λ)⁻¹ b_k, float64."""
        X, certificate = self.influence.solve(B)
        return Solved(X, _certificate(None if certificate is None else certificate.describe(), len(B)))

    def scores(self, test_tasks: TaskSet) -> Scored:
        """I_perf, [n_test, M], float64."""
        found = self.influence.scores(test_tasks)
        return Scored(found.values, _certificate(found.info["certificate"], len(test_tasks)))


def _certificate(described: dict | None, count: int) -> Certificate:
    """The identity is inverted without error."""
    if described is None:
        return Certificate((0.0,) * count, 0.0, True)
    details = {k: v for k, v in described.items() if k not in ("residuals", "damping", "converged")}
    return Certificate(tuple(described["residuals"]), described["damping"], described["converged"], details)


compiled = Ours("compiled", True)
reference = Ours("reference", False)
