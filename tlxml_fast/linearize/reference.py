"""The reference backend: torch.func on any module, in float32 or float64. The oracle of every other backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

with (
    warnings.catch_warnings()
):  # torch scripts its own formulas at the first jvp, and warns that it should not
    warnings.simplefilter("ignore", FutureWarning)
    import torch._decomp.decompositions_for_jvp
from torch.func import jvp, vjp, vmap

from ..learners import Episode, Learner
from ..parallel import FORWARD_MODE
from ..profiling import span
from ..task import TaskSet
from ..timing import by_the_clock, seconds
from .base import BackendReport, FlatParameters, Linearization

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

    forward_side_by_side = False

    def prepare(self) -> None:
        """The logits, which Λ needs."""
        _ = self.logits

    @torch.no_grad()
    def logits_block(self, block: slice) -> Tensor:
        """f, [B, n, C]."""
        return torch.stack([self._logits(self.omega, e).detach() for e in self.episodes[block]])

    def jvp_block(self, block: slice, V: Tensor) -> Tensor:
        """J_t v_k by forward mode."""
        return torch.stack([self._jvp(t, V) for t in self._tasks(block)])

    def vjp_block(self, block: slice, U: Tensor) -> Tensor:
        """J_tᵀ u_k by reverse mode, all k sharing the forward pass."""
        return torch.stack([self._vjp(t, u) for t, u in zip(self._tasks(block), U, strict=True)])

    def gnvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ(Λ_t(J_t v_k))."""
        return sum(
            w * self._vjp(t, self._curve(t, self._jvp(t, V)))
            for t, w in zip(self._tasks(block), weights, strict=True)
        )

    def hvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, forward over reverse, through the adaptation."""
        return sum(w * self._hvp(t, V) for t, w in zip(self._tasks(block), weights, strict=True))

    def adaptation_block(self, block: slice, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k by forward mode."""
        return torch.stack([self._adaptation(t, V) for t in self._tasks(block)])

    # ---- one task -----------------------------------------------------------------------------------

    def _tasks(self, block: slice) -> range:
        return range(self.T)[block]

    def _jvp(self, t: int, V: Tensor) -> Tensor:
        def push(v: Tensor) -> Tensor:
            return jvp(lambda w: self._logits(w, self.episodes[t]), (self.omega,), (v,))[1]

        with FORWARD_MODE:
            return self._over_vectors("jvp", push, V)

    def _vjp(self, t: int, U: Tensor) -> Tensor:
        _, pull = vjp(lambda w: self._logits(w, self.episodes[t]), self.omega)
        return self._over_vectors("vjp", lambda u: pull(u)[0], U)

    def _hvp(self, t: int, V: Tensor) -> Tensor:
        # made here: inside, they would be a transform's tensors
        episode, targets = self.episodes[t], self.targets[t]
        learner = self._any_order  # through adaptation the model is differentiated three times

        def loss(w: Tensor) -> Tensor:
            return learner.loss(learner.query_logits(self.flat.unflatten(w), episode, self.ways), targets)

        gradient = torch.func.grad(loss)
        with FORWARD_MODE:
            return self._over_vectors("hvp", lambda v: jvp(gradient, (self.omega,), (v,))[1], V)

    def _adaptation(self, t: int, V: Tensor) -> Tensor:
        def adapted(omega: Tensor) -> Tensor:
            theta = self.learner.adapt(self.flat.unflatten(omega), self.episodes[t], self.ways)
            return FlatParameters(theta).flatten(theta)

        with FORWARD_MODE:
            return torch.stack([jvp(adapted, (self.omega,), (v,))[1].detach() for v in V])

    def _logits(self, omega: Tensor, episode: Episode) -> Tensor:
        return self.learner.query_logits(self.flat.unflatten(omega), episode, self.ways)

    def _curve(self, t: int, tangents: Tensor) -> Tensor:
        """Λ_t u_k: [K, n, C] → [K, n, C]."""
        return self.learner.loss.output_hessian(self.logits[t : t + 1], tangents[None], backend="reference")[
            0
        ]

    # ---- one vector at a time, or many in one vmap --------------------------------------------------

    def _over_vectors(self, kind: str, apply: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        """`apply` on every row, in the order of the rows."""
        with span(f"torch.func {kind}"):
            mode = self.execution or self._chosen.get(kind)
            if mode is None and len(vectors) >= 4:
                mode = self._chosen[kind] = self._measure(kind, apply, vectors)
            if mode == BATCHED:
                return torch.cat([_at_once(apply, chunk) for chunk in vectors.split(VECTORS_AT_ONCE)])
            return torch.stack([apply(v) for v in vectors]).detach()

    def _measure(self, kind: str, apply: Callable[[Tensor], Tensor], vectors: Tensor) -> str:
        """Time both ways on the first vectors; LOOPED where vmap does not work at all."""
        sample = vectors[:VECTORS_AT_ONCE]
        timed = by_the_clock()
        looped = seconds(lambda: [apply(v) for v in sample[:2]]) / 2 if timed else float("inf")
        try:
            batched = seconds(lambda: _at_once(apply, sample)) / len(sample)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            reason = str(error).splitlines()[0]
            self.report.decisions[kind] = f"looped over vectors: vmap does not work here ({reason})"
            return LOOPED
        if not timed:
            self.report.decisions[kind] = f"{BATCHED} over vectors: runs are to be repeatable"
            return BATCHED
        mode = BATCHED if batched < looped else LOOPED
        self.report.decisions[kind] = (
            f"{mode} over vectors ({looped * 1e3:.2f} ms a vector looped, "
            f"{batched * 1e3:.2f} in a vmap of {len(sample)})"
        )
        return mode


def _at_once(apply: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    return vmap(apply)(vectors).detach()
