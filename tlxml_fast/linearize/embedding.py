"""ProtoNet's passes: the encoder by the engine, the head by its formulas, sums over tasks in place.

ω is shared by all tasks, so that Σ_t w_t J_tᵀ(·) needs one [K, q] whatever the number of tasks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from ..learners import ProtoNet
from ..ops.proto_gn import HeadProduct
from ..ops.prototypes import Head, head_hvp, head_jvp, head_vjp, head_vjp_per_query, proto_head
from .batch import Batch
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
        self.separable = not module_plan.couples_examples
        """Whether a query's embedding depends on no other query."""

    # ---- the encoder: one forward for support and query, or one each ----------------------------------------

    def _tapes(self, omega: Tensor, batch: Batch) -> list[Tape]:
        return batch.keep("tapes", omega, lambda: self._forward(omega, batch))

    def _forward(self, omega: Tensor, batch: Batch) -> list[Tape]:
        support, query = batch.support_x, batch.query_x
        together = [torch.cat([support, query], 1)] if self.learner.joint_forward else [support, query]
        w = self.layout.primal(omega[None])
        return [self.engine.forward(w, channels_last(x)) for x in together]

    def _head(self, tapes: list[Tape], batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings [T, S + n, D], support first, and the support labels."""
        return (tapes[0].y if len(tapes) == 1 else torch.cat([tape.y for tape in tapes], 1)), batch.support_y

    def _moved(self, tapes: list[Tape], V: Tensor, keep: bool = False) -> tuple[Tensor, list[Tangents]]:
        """Tangents of the embeddings, [T, S + n, K, D]."""
        dw = self.layout.tangents(V[None])
        tangents = [self.engine.jvp(tape, dw, keep) for tape in tapes]
        K = len(V)
        each = [
            t.y.new_zeros(*t.y.shape[:2], K, t.y.shape[2]) if m.dy is None else m.dy
            for t, m in zip(tapes, tangents, strict=True)
        ]
        return (each[0] if len(each) == 1 else torch.cat(each, 1)), tangents

    def _returned(self, tapes: list[Tape], gz: Tensor, total: bool) -> Tensor:
        """Cotangents of ω from those of the embeddings: [T, K, q], or summed over tasks, [1, K, q]."""
        T, K = (1 if total else len(gz)), gz.shape[2]
        each = [
            self.engine.vjp(tape, g, self.layout.names, total).parameters
            for tape, g in zip(tapes, self._apart(gz, tapes), strict=True)
        ]
        return reduce(add, (self.layout.flatten(named, T, K, gz) for named in each))

    @staticmethod
    def _apart(gz: Tensor, tapes: list[Tape]) -> list[Tensor]:
        return [g.contiguous() for g in gz.split([tape.y.shape[1] for tape in tapes], 1)]

    def numbers_a_vector(self, omega: Tensor, batch: Batch) -> int:
        """About how many numbers each vector takes: the largest layer's, twice."""
        return 2 * max(
            sum(sizes) for sizes in zip(*(t.inputs for t in self._tapes(omega, batch)), strict=True)
        )

    # ---- products -------------------------------------------------------------------------------------------

    def logits(self, omega: Tensor, batch: Batch) -> Tensor:
        """f, [T, n, C]."""
        return self._formulas(*self._head(self._tapes(omega, batch), batch)).logits

    def _formulas(self, z: Tensor, labels: Tensor) -> Head:
        return proto_head(z, labels, self.ways, self.learner.distance, self.learner.scale)

    def jvp(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [T, K, n, C]."""
        tapes = self._tapes(omega, batch)
        head = self._formulas(*self._head(tapes, batch))
        return head_jvp(head, self._moved(tapes, V)[0].transpose(1, 2))

    def vjp(self, omega: Tensor, batch: Batch, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [T, K, n, C] → [T, K, q]."""
        tapes = self._tapes(omega, batch)
        head = self._formulas(*self._head(tapes, batch))
        return self._returned(tapes, head_vjp(head, U).transpose(1, 2), total=False)

    def per_query_vjp(self, omega: Tensor, batch: Batch, U: Tensor, at_once: int) -> Tensor:
        """J_tᵀ of cotangents of one query each: U [T, n, r, C] → [T, n, r, q].

        Each goes through its own query, taken for a task of one example, and through the support set, `at_once` there.
        """
        T, n, r, _ = U.shape
        w = self.layout.primal(omega[None])
        support = self.engine.forward(w, channels_last(batch.support_x))
        query = self.engine.forward(w, channels_last(batch.query_x.flatten(0, 1)[:, None]))
        z = torch.cat([support.y, query.y.view(T, n, -1)], 1)
        gsupport, gquery = head_vjp_per_query(self._formulas(z, batch.support_y), U)
        own = self._returned([query], gquery.view(T * n, 1, r, -1), total=False).view(T, n * r, -1)
        chunks = gsupport.flatten(1, 2).split(at_once, 1)
        shared = [self._returned([support], g.transpose(1, 2), total=False) for g in chunks]
        return (own + torch.cat(shared, 1)).view(T, n, r, -1)

    def adaptation(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, [T, K, p]: the encoder's parameters as they are, then the prototypes'."""
        tapes = self._tapes(omega, batch)
        head = self._formulas(*self._head(tapes, batch))
        dz = self._moved(tapes, V)[0].transpose(1, 2)
        prototypes = head.mean[:, None] @ dz[:, :, : head.mean.shape[2]]
        return torch.cat([V.expand(len(batch), -1, -1), prototypes.flatten(2)], 2)

    def gradients(self, omega: Tensor, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        """f [T, n, C] and ∇_ω L_t [T, q], in one go."""
        tapes = self._tapes(omega, batch)
        head = self._formulas(*self._head(tapes, batch))
        u = self.loss.gradient(head.logits, targets)[:, None]
        return head.logits, self._returned(tapes, head_vjp(head, u).transpose(1, 2), total=False)[:, 0]

    def gnvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k, [K, q]."""
        tapes = self._tapes(omega, batch)
        learner = self.learner
        head = batch.keep(
            "head",
            omega,
            lambda: HeadProduct(*self._head(tapes, batch), self.ways, learner.distance, learner.scale),
        )
        return self._returned(tapes, head(self._moved(tapes, V)[0], weights), total=True)[0]

    def no_third_derivative(self) -> str | None:
        """The exact Hessian of a ProtoNet takes second derivatives only."""
        return None

    def hvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, [K, q]."""
        tapes = self._tapes(omega, batch)
        z, labels = self._head(tapes, batch)
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
