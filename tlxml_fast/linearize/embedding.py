"""ProtoNet's passes: the encoder by the engine, the head by its formulas, sums over tasks in place.

ω is shared by all tasks, so that Σ_t w_t J_tᵀ(·) needs one [K, q] whatever the number of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..learners import Episode, ProtoNet
from ..ops import proto_gn
from ..ops.prototypes import Head, head_hvp, head_jvp, head_vjp, proto_head
from .engine import Engine, Reverse, Tangents, Tape, channels_last
from .layers import Flatten
from .parameters import Layout
from .plan import Plan, Step


class Embedding:
    """The passes of a ProtoNet learner through its encoder to query logits."""

    def __init__(self, learner: ProtoNet, module_plan: Plan, layout: Layout, ways: int):
        flat = Step(Flatten(), (len(module_plan.steps),), "flatten")
        self.learner, self.layout, self.ways = learner, layout, ways
        self.engine = Engine(replace(module_plan, steps=(*module_plan.steps, flat)))
        self.loss = learner.loss

    # ---- the encoder: one forward for support and query, or one each ----------------------------------------

    def _tapes(self, omega: Tensor, episodes: Sequence[Episode]) -> list[Tape]:
        support, query = (
            torch.stack([getattr(e, field) for e in episodes]) for field in ("support_x", "query_x")
        )
        together = [torch.cat([support, query], 1)] if self.learner.joint_forward else [support, query]
        w = self.layout.primal(omega[None])
        return [self.engine.forward(w, channels_last(x)) for x in together]

    def _head(self, tapes: list[Tape], episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
        """Embeddings [T, S + n, D], support first, and the support labels."""
        return torch.cat([tape.y for tape in tapes], 1), torch.stack([e.support_y for e in episodes])

    def _moved(self, tapes: list[Tape], V: Tensor, keep: bool = False) -> tuple[Tensor, list[Tangents]]:
        """Tangents of the embeddings, [T, S + n, K, D]."""
        dw = self.layout.tangents(V[None])
        tangents = [self.engine.jvp(tape, dw, keep) for tape in tapes]
        return torch.cat([t.dy for t in tangents], 1), tangents

    def _returned(self, tapes: list[Tape], gz: Tensor, total: bool) -> Tensor:
        """Cotangents of ω from those of the embeddings: [T, K, q], or summed over tasks, [1, K, q]."""
        T, K = (1 if total else len(gz)), gz.shape[2]
        each = [
            self.engine.vjp(tape, g, self.layout.names, total).parameters
            for tape, g in zip(tapes, self._apart(gz, tapes), strict=True)
        ]
        return sum(self.layout.flatten(named, T, K, gz) for named in each)

    @staticmethod
    def _apart(gz: Tensor, tapes: list[Tape]) -> list[Tensor]:
        return [g.contiguous() for g in gz.split([tape.y.shape[1] for tape in tapes], 1)]

    def numbers_a_vector(self, omega: Tensor, episodes: Sequence[Episode]) -> int:
        """About how many numbers each vector takes: the largest layer's, twice."""
        return 2 * max(
            sum(sizes) for sizes in zip(*(t.inputs for t in self._tapes(omega, episodes)), strict=True)
        )

    # ---- products -------------------------------------------------------------------------------------------

    def logits(self, omega: Tensor, episodes: Sequence[Episode]) -> Tensor:
        """f, [T, n, C]."""
        return self._formulas(*self._head(self._tapes(omega, episodes), episodes)).logits

    def _formulas(self, z: Tensor, labels: Tensor) -> Head:
        return proto_head(z, labels, self.ways, self.learner.distance, self.learner.scale)

    def jvp(self, omega: Tensor, episodes: Sequence[Episode], V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [T, K, n, C]."""
        tapes = self._tapes(omega, episodes)
        head = self._formulas(*self._head(tapes, episodes))
        return head_jvp(head, self._moved(tapes, V)[0].transpose(1, 2))

    def vjp(self, omega: Tensor, episodes: Sequence[Episode], U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [T, K, n, C] → [T, K, q]."""
        tapes = self._tapes(omega, episodes)
        head = self._formulas(*self._head(tapes, episodes))
        return self._returned(tapes, head_vjp(head, U).transpose(1, 2), total=False)

    def adaptation(self, omega: Tensor, episodes: Sequence[Episode], V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, [T, K, p]: the encoder's parameters as they are, then the prototypes'."""
        tapes = self._tapes(omega, episodes)
        head = self._formulas(*self._head(tapes, episodes))
        dz = self._moved(tapes, V)[0].transpose(1, 2)
        prototypes = head.mean[:, None] @ dz[:, :, : head.mean.shape[2]]
        return torch.cat([V.expand(len(episodes), -1, -1), prototypes.flatten(2)], 2)

    def gradients(self, omega: Tensor, episodes: Sequence[Episode], targets: Tensor) -> tuple[Tensor, Tensor]:
        """f [T, n, C] and ∇_ω L_t [T, q], in one go."""
        tapes = self._tapes(omega, episodes)
        head = self._formulas(*self._head(tapes, episodes))
        u = self.loss.gradient(head.logits, targets)[:, None]
        return head.logits, self._returned(tapes, head_vjp(head, u).transpose(1, 2), total=False)[:, 0]

    def gnvp(self, omega: Tensor, episodes: Sequence[Episode], V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k, [K, q]."""
        tapes = self._tapes(omega, episodes)
        z, labels = self._head(tapes, episodes)
        S = labels.shape[1]
        dz = self._moved(tapes, V)[0].transpose(1, 2)
        learner = self.learner
        gz = proto_gn(
            z[:, :S], z[:, S:], labels, dz[:, :, :S], dz[:, :, S:],
            ways=self.ways, distance=learner.distance, scale=learner.scale,
        )  # fmt: skip
        cotangents = torch.cat(gz, 2).transpose(1, 2) * weights[:, None, None, None]
        return self._returned(tapes, cotangents, total=True)[0]

    def no_third_derivative(self) -> str | None:
        """The exact Hessian of a ProtoNet takes second derivatives only."""
        return None

    def hvp(
        self, omega: Tensor, episodes: Sequence[Episode], V: Tensor, weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, [K, q]."""
        tapes = self._tapes(omega, episodes)
        z, labels = self._head(tapes, episodes)
        dz, tangents = self._moved(tapes, V, keep=True)
        gz, dgz = head_hvp(
            z, labels, dz.transpose(1, 2), targets, self.ways, self.learner.distance, self.learner.scale
        )
        scale = weights[:, None, None, None]
        total = torch.zeros_like(V)
        parts = zip(
            tapes,
            tangents,
            self._apart(gz[:, :, None] * scale, tapes),
            self._apart(dgz.transpose(1, 2) * scale, tapes),
            strict=True,
        )
        for tape, moved, g, dg in parts:
            reverse: Reverse = self.engine.vjp(tape, g, self.layout.names, keep=True)
            named = self.engine.hvp(tape, reverse, moved, dg, self.layout.names)
            total += self.layout.flatten(named, len(z), len(V), V).sum(0)
        return total
