"""The reference backend: torch.func on any module, in float32 or float64. The oracle of every other backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

with (
    warnings.catch_warnings()
):  # torch scripts its own formulas at the first jvp, and warns that it should not
    warnings.simplefilter("ignore", FutureWarning)
    import torch._decomp.decompositions_for_jvp
from torch.func import jvp, vjp, vmap

from ..learners import Episode, Learner
from ..parallel import FORWARD_MODE, task_threads
from ..task import TaskSet
from ..timing import seconds
from .base import BackendReport, Linearization

LOOPED, BATCHED = "looped", "batched"

# Vectors in one vmap: enough to hide the overhead of small operations, few enough to bound memory.
VECTORS_AT_ONCE = 32


class ReferenceLinearization(Linearization):
    """Derivatives by torch.func, one task at a time, its vectors looped over or in one vmap.

    Which of the two is faster depends on the model: vmap hides the overhead of small layers and is slow where
    it turns shared convolution weights into grouped ones. Each kind of product is timed both ways the first
    time it is asked for enough vectors, the faster is kept, and `report.decisions` says so. A model
    that cannot be vmapped is looped over, with the reason. `execution` fixes the choice instead.
    """

    def __init__(
        self,
        learner: Learner,
        tasks: TaskSet,
        dtype: torch.dtype | None = None,
        report: BackendReport | None = None,
        execution: str | None = None,
    ):
        super().__init__(learner, tasks, dtype, report or BackendReport("reference", "asked for"))
        self.execution = execution
        self._any_order = learner.with_body(learner.body.any_order())
        self._chosen: dict[str, str] = {}

    @cached_property
    def logits(self) -> Tensor:
        """f, [T, n, C]."""

        @torch.no_grad()
        def forward(episode: Episode) -> Tensor:
            return self._logits(self.omega, episode).detach()

        with task_threads(self.device.type == "cpu") as each:
            return torch.stack(list(each(forward, self.episodes)))

    def jvp_task(self, t: int, V: Tensor) -> Tensor:
        """J_t v_k by forward mode."""

        def push(v: Tensor) -> Tensor:
            return jvp(lambda w: self._logits(w, self.episodes[t]), (self.omega,), (v,))[1]

        with FORWARD_MODE:
            return self._over_vectors("jvp", push, V)

    def vjp_task(self, t: int, U: Tensor) -> Tensor:
        """J_tᵀ u_k by reverse mode, all k sharing the forward pass."""
        _, pull = vjp(lambda w: self._logits(w, self.episodes[t]), self.omega)
        return self._over_vectors("vjp", lambda u: pull(u)[0], U)

    def gnvp_task(self, t: int, V: Tensor) -> Tensor:
        """J_tᵀ(Λ_t(J_t v_k))."""
        return self.vjp_task(t, self._curve(t, self.jvp_task(t, V), "reference"))

    def hvp_task(self, t: int, V: Tensor) -> Tensor:
        """∇²L_t v_k, forward over reverse, through the adaptation."""
        # made here: inside, they would be a transform's tensors
        episode, targets = self.episodes[t], self.targets[t]
        learner = self._any_order  # through adaptation the model is differentiated three times

        def loss(w: Tensor) -> Tensor:
            return learner.loss(learner.query_logits(self.flat.unflatten(w), episode, self.ways), targets)

        gradient = torch.func.grad(loss)
        with FORWARD_MODE:
            return self._over_vectors("hvp", lambda v: jvp(gradient, (self.omega,), (v,))[1], V)

    def _logits(self, omega: Tensor, episode: Episode) -> Tensor:
        return self.learner.query_logits(self.flat.unflatten(omega), episode, self.ways)

    def _curve(self, t: int, tangents: Tensor, backend: str) -> Tensor:
        """Λ_t u_k: [K, n, C] → [K, n, C]."""
        return self.learner.loss.output_hessian(self.logits[t : t + 1], tangents[None], backend=backend)[0]

    # ---- one vector at a time, or many in one vmap --------------------------------------------------

    def _over_vectors(self, kind: str, apply: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        """`apply` on every row, in the order of the rows."""
        mode = self.execution or self._chosen.get(kind)
        if mode is None and len(vectors) >= 4:
            mode = self._chosen[kind] = self._measure(kind, apply, vectors)
        if mode == BATCHED:
            return torch.cat([_at_once(apply, chunk) for chunk in vectors.split(VECTORS_AT_ONCE)])
        return torch.stack([apply(v) for v in vectors]).detach()

    def _measure(self, kind: str, apply: Callable[[Tensor], Tensor], vectors: Tensor) -> str:
        """Time both ways on the first vectors; LOOPED where vmap does not work at all."""
        sample = vectors[:VECTORS_AT_ONCE]
        looped = seconds(lambda: [apply(v) for v in sample[:2]]) / 2
        try:
            batched = seconds(lambda: _at_once(apply, sample)) / len(sample)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            reason = str(error).splitlines()[0]
            self.report.decisions[kind] = f"looped over vectors: vmap does not work here ({reason})"
            return LOOPED
        mode = BATCHED if batched < looped else LOOPED
        self.report.decisions[kind] = (
            f"{mode} over vectors ({looped * 1e3:.2f} ms a vector looped, "
            f"{batched * 1e3:.2f} in a vmap of {len(sample)})"
        )
        return mode


def _at_once(apply: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    return vmap(apply)(vectors).detach()
