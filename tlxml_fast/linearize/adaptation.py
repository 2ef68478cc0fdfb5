"""MAML's passes: the chain of inner steps in both directions, without a graph through them.

A step is θ' = θ − D g(θ) with g = ∇L_S, D = diag(rates), zero where frozen, H = ∇²L_S over all parameters:

    tangents     v ← v − D(Hv) − ḋ∘g        (ḋ: tangents of rates that are learned)
    cotangents   λ ← λ − H(Dλ),      d̄ ← d̄ − g∘λ

Only θ_s is stored: activations of a step are computed again when the chain comes by, so that memory does not grow
with steps. D and H do not commute, and H is that of all parameters, frozen ones included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..learners import MAML
from .batch import Batch
from .engine import Engine, Reverse, Tape, channels_last
from .hyperdual import Hyper, plus
from .parameters import Layout
from .plan import Plan


class Adaptation:
    """The passes of a MAML learner through adaptation to query logits."""

    def __init__(self, learner: MAML, module_plan: Plan, layout: Layout, ways: int):
        self.learner, self.engine, self.layout = learner, Engine(module_plan), layout
        self.loss = learner.loss
        self.adapted = frozenset(learner.adapted)
        # on the device once: no CUDA graph can hold a copy from the host
        self.rates = {name: rate.detach().to(layout.device) for name, rate in learner.rates.items()}
        self.separable = not module_plan.couples_examples
        """Whether a query's logits depend on no other query."""

    # ---- rates --------------------------------------------------------------------------------------------

    def _rates(self, omega: Tensor) -> Tensor:
        """D's diagonal, [p]."""
        given = omega[self.layout.size :]
        parts, at = [], 0
        for (name, shape), size in zip(self.layout.shapes.items(), self.layout.sizes, strict=True):
            if name not in self.adapted:
                parts.append(omega.new_zeros(size))
            elif self.learner.learn_inner_lr:
                parts.append(given[at : at + size])
                at += size
            else:
                rate = self.rates[name].to(omega)
                parts.append(rate.expand(shape).reshape(-1))
        return torch.cat(parts)

    def _split(self, V: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tangents of ω [K, q] → of the parameters [1, K, p], and of D's diagonal, or None."""
        if not self.learner.learn_inner_lr:
            return V[None], None
        named = dict(
            zip(self.learner.rates, V[:, self.layout.size :].split(self._rate_sizes(), dim=1), strict=True)
        )
        return V[None, :, : self.layout.size], self.layout.flatten(
            {name: v[None] for name, v in named.items()}, 1, len(V), V
        )

    def _join(self, parameters: Tensor, rates: Tensor | None) -> Tensor:
        """The other way round: cotangents [T, K, p] and of D's diagonal → [T, K, q]."""
        if rates is None:
            return parameters
        named = self.layout.tangents(rates, self.adapted)
        return torch.cat([parameters, *(named[name].flatten(2) for name in self.learner.rates)], dim=2)

    def _rate_sizes(self) -> list[int]:
        sizes = dict(zip(self.layout.shapes, self.layout.sizes, strict=True))
        return [sizes[name] for name in self.learner.rates]

    # ---- steps --------------------------------------------------------------------------------------------

    def _slope(self, theta: Tensor, x: Tensor, y: Tensor, wanted: frozenset[str]) -> tuple[Tape, Reverse]:
        """The support loss at θ: its forward pass and its gradient's."""
        tape = self.engine.forward(self.layout.primal(theta), x)
        gy = self.loss.gradient(tape.y, y)
        return tape, self.engine.vjp(tape, gy[:, :, None], wanted, keep=True)

    def _gradient(self, reverse: Reverse, T: int, like: Tensor) -> Tensor:
        return self.layout.flatten(reverse.parameters, T, 1, like)

    def _hessian(
        self, tape: Tape, reverse: Reverse, v: Tensor, moving: frozenset[str] | None, wanted: frozenset[str]
    ) -> Tensor:
        """H v for v [T or 1, K, p] that is zero outside `moving`: [T, K, p], its rows outside `wanted` zero."""
        tangents = self.engine.jvp(tape, self.layout.tangents(v, moving), keep=True)
        dgy = None if tangents.dy is None else self.loss.curve(tape.y, tangents.dy)
        named = self.engine.hvp(tape, reverse, tangents, dgy, wanted)
        return self.layout.flatten(named, len(tape.y), v.shape[1], v)

    def _trajectory(self, omega: Tensor, x: Tensor, y: Tensor, D: Tensor) -> list[Tensor]:
        """θ_0 … θ_steps, each [T or 1, p]."""
        thetas = [omega[None, : self.layout.size]]
        for _ in range(self.learner.inner_steps):
            _, reverse = self._slope(thetas[-1], x, y, self.adapted)
            thetas.append(thetas[-1] - D * self._gradient(reverse, len(x), omega)[:, 0])
        return thetas

    def _push_step(
        self, theta: Tensor, x: Tensor, y: Tensor, D: Tensor, v: Tensor, rates: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """θ_{s+1} and its tangents, [T, K, p]."""
        tape, reverse = self._slope(theta, x, y, self.layout.names)
        gradient = self._gradient(reverse, len(x), theta)
        v = v - D * self._hessian(tape, reverse, v, None, self.adapted)
        if rates is not None:
            v = v - rates * gradient
        return theta - D * gradient[:, 0], v

    def _push(self, omega: Tensor, x: Tensor, y: Tensor, D: Tensor, V: Tensor) -> tuple[list[Tensor], Tensor]:
        """The trajectory, and the tangents of its end, [T or 1, K, p]."""
        v, rates = self._split(V)
        thetas = [omega[None, : self.layout.size]]
        for _ in range(self.learner.inner_steps):
            theta, v = self._push_step(thetas[-1], x, y, D, v, rates)
            thetas.append(theta)
        return thetas, v

    def _pull(self, thetas: list[Tensor], x: Tensor, y: Tensor, D: Tensor, cotangents: Tensor) -> Tensor:
        """Cotangents [T, K, p] of the trajectory's end pulled back to ω, [T, K, q]."""
        rates = torch.zeros_like(cotangents) if self.learner.learn_inner_lr else None
        for theta in reversed(thetas[:-1]):
            cotangents = self._pull_step(theta, x, y, D, cotangents, rates)
        return self._join(cotangents, rates)

    def _pull_step(
        self, theta: Tensor, x: Tensor, y: Tensor, D: Tensor, cotangents: Tensor, rates: Tensor | None
    ) -> Tensor:
        """Cotangents of θ_s, [T, K, p]; those of D's diagonal are added to `rates`.

        A function of its own, so that a step's activations are freed before the next makes its own.
        """
        tape, reverse = self._slope(theta, x, y, self.layout.names)
        if rates is not None:
            rates -= self._gradient(reverse, len(x), theta) * cotangents
        return cotangents - self._hessian(tape, reverse, D * cotangents, self.adapted, self.layout.names)

    def numbers_a_vector(self, omega: Tensor, batch: Batch) -> int:
        """About how many numbers each vector takes: all layers' of the support set, the largest two of the query's."""
        x, _, query = _stack(batch)
        w = self.layout.primal(omega[None, : self.layout.size])
        support = 3 * sum(self.engine.forward(w, x).inputs) if self.learner.inner_steps else 0
        return support + 2 * max(self.engine.forward(w, query).inputs) + 4 * len(x) * self.layout.size

    # ---- products -----------------------------------------------------------------------------------------

    def logits(self, omega: Tensor, batch: Batch) -> Tensor:
        """f, [T, n, C]."""
        x, y, query = _stack(batch)
        theta = self._trajectory(omega, x, y, self._rates(omega))[-1]
        return self.engine.forward(self.layout.primal(theta), query).y

    def jvp(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [T, K, n, C]."""
        x, y, query = _stack(batch)
        thetas, v = self._push(omega, x, y, self._rates(omega), V)
        tape = self.engine.forward(self.layout.primal(thetas[-1]), query)
        return self._moved(tape, v).transpose(1, 2)

    def vjp(self, omega: Tensor, batch: Batch, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [T, K, n, C] → [T, K, q]."""
        x, y, query = _stack(batch)
        D = self._rates(omega)
        thetas = self._trajectory(omega, x, y, D)
        _, ends = self._pull_query(thetas[-1], query, lambda tape: U.transpose(1, 2).contiguous())
        return self._pull(thetas, x, y, D, ends)

    def per_query_vjp(self, omega: Tensor, batch: Batch, U: Tensor, at_once: int) -> Tensor:
        """J_tᵀ of cotangents of one query each, `at_once` in the chain: U [T, n, r, C] → [T, n, r, q].

        To the last θ each goes through its own query only, taken for a task of one example.
        """
        x, y, query = _stack(batch)
        D = self._rates(omega)
        thetas = self._trajectory(omega, x, y, D)
        rows = []
        for t in range(len(x)):
            own = [theta[t : t + 1] if len(theta) > 1 else theta for theta in thetas]
            tape = self.engine.forward(self.layout.primal(own[-1]), query[t, :, None])
            ends = self._returned(tape, U[t, :, None].contiguous()).flatten(0, 1)[None]
            pulled = [self._pull(own, x[t : t + 1], y[t : t + 1], D, end) for end in ends.split(at_once, 1)]
            rows.append(torch.cat(pulled, 1).view(*U.shape[1:3], -1))
        return torch.stack(rows)

    def adaptation(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, [T, K, p]."""
        x, y, _ = _stack(batch)
        return self._push(omega, x, y, self._rates(omega), V)[1].expand(len(x), -1, -1)

    def gradients(self, omega: Tensor, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        """f [T, n, C] and ∇_ω L_t [T, q], in one go."""
        x, y, query = _stack(batch)
        D = self._rates(omega)
        thetas = self._trajectory(omega, x, y, D)
        f, ends = self._pull_query(
            thetas[-1], query, lambda tape: self.loss.gradient(tape.y, targets)[:, :, None]
        )
        return f, self._pull(thetas, x, y, D, ends)[:, 0]

    def gnvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k, [K, q], while the task's activations are at hand."""
        x, y, query = _stack(batch)
        D = self._rates(omega)
        thetas, v = self._push(omega, x, y, D, V)
        weights = weights[:, None, None, None]
        _, ends = self._pull_query(
            thetas[-1], query, lambda tape: self.loss.curve(tape.y, self._moved(tape, v)) * weights
        )
        return self._pull(thetas, x, y, D, ends).sum(0)

    # ---- the exact Hessian --------------------------------------------------------------------------------

    def no_third_derivative(self) -> str | None:
        """Why the exact Hessian cannot run here; None if it can."""
        label = self.engine.no_third_order() if self.learner.inner_steps else None
        return None if label is None else f"the engine has no third derivative of {label}"

    def hvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, [K, q]: the tangents of the gradient's own chain.

        λ_S = ∇L_Q(θ_S),  λ_s = λ_{s+1} − H D λ_{s+1}. Along θ̇ (and Ḋ, where rates are learned):

            λ̇_s = λ̇_{s+1} − H(Dλ̇_{s+1} + Ḋλ_{s+1}) − ∇³L_S(θ_s)[θ̇_s, Dλ_{s+1}]

        θ̇_s and λ_s are kept for every step.
        """
        x, y, query = _stack(batch)
        D = self._rates(omega)
        thetas, moved, rates = self._push_keeping(omega, x, y, D, V)
        tape = self.engine.forward(self.layout.primal(thetas[-1]), query)
        gy = self.loss.gradient(tape.y, targets)[:, :, None] * weights[:, None, None, None]
        reverse = self.engine.vjp(tape, gy, self.layout.names, keep=True)
        lam = self.layout.flatten(reverse.parameters, len(x), 1, omega)
        tangents = self.engine.jvp(tape, self.layout.tangents(moved[-1]), keep=True)
        dgy = None
        if tangents.dy is not None:
            dgy = (
                self.loss.curve(tape.y, tangents.dy.expand(len(x), -1, -1, -1)) * weights[:, None, None, None]
            )
        dlam = self.layout.flatten(
            self.engine.hvp(tape, reverse, tangents, dgy, self.layout.names), len(x), len(V), omega
        )
        dbar = torch.zeros_like(dlam) if self.learner.learn_inner_lr else None
        for theta, dtheta in zip(reversed(thetas[:-1]), reversed(moved[:-1]), strict=True):
            seed = D * dlam if rates is None else D * dlam + rates * lam
            w = self._hyper(theta, dtheta, D * lam, seed)
            named = self.engine.hyper_gradient(w, x, lambda f: self._loss_slope(f, y))
            gradient, along, second, mixed = (
                self._component(named, part, len(x), K, omega)
                for part, K in (("v", 1), ("a", len(V)), ("b", 1), ("ab", len(V)))
            )
            if dbar is not None:
                dbar -= along * lam + gradient * dlam
            dlam, lam = dlam - mixed, lam - second
        return self._join(dlam, dbar).sum(0)

    def _push_keeping(
        self, omega: Tensor, x: Tensor, y: Tensor, D: Tensor, V: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """θ_s and θ̇_s of every step, and Ḋ."""
        v, rates = self._split(V)
        thetas, moved = [omega[None, : self.layout.size]], [v]
        for _ in range(self.learner.inner_steps):
            theta, v = self._push_step(thetas[-1], x, y, D, v, rates)
            thetas.append(theta)
            moved.append(v)
        return thetas, moved, rates

    def _hyper(self, theta: Tensor, a: Tensor, b: Tensor, ab: Tensor) -> dict[str, Hyper]:
        """Parameters [T, K or 1, *shape] in hyper-dual numbers, and the constants."""
        parts = [self.layout.tangents(v) for v in (theta[:, None], a, b, ab)]
        moving = {name: Hyper(*(part[name] for part in parts)) for name in self.layout.names}
        return {**{name: Hyper(c[:, None]) for name, c in self.layout.constants.items()}, **moving}

    def _loss_slope(self, f: Hyper, y: Tensor) -> Hyper:
        """∂L_S/∂f at hyper-dual logits [T, n, K or 1, C]."""
        logits = f.v.squeeze(2)
        mixed = None if f.ab is None else self.loss.curve(logits, f.ab)
        if f.a is not None and f.b is not None:
            mixed = plus(mixed, self.loss.third(logits, f.b, f.a))
        return Hyper(
            self.loss.gradient(logits, y)[:, :, None],
            *(None if part is None else self.loss.curve(logits, part) for part in (f.a, f.b)),
            mixed,
        )

    def _component(self, named: dict[str, Hyper], which: str, T: int, K: int, like: Tensor) -> Tensor:
        parts = {name: getattr(h, which) for name, h in named.items() if name in self.layout.names}
        found = {name: part for name, part in parts.items() if part is not None}
        return self.layout.flatten(found, T, K, like)

    # ---- the query set --------------------------------------------------------------------------------------

    def _moved(self, tape: Tape, v: Tensor) -> Tensor:
        """Tangents of the logits, [T, n, K, C]."""
        dy = self.engine.jvp(tape, self.layout.tangents(v)).dy
        if dy is None:  # of parameters that change nothing, as biases before batch statistics do
            return tape.y.new_zeros(*tape.y.shape[:2], v.shape[1], tape.y.shape[2])
        return dy.expand(len(tape.y), *dy.shape[1:])

    def _pull_query(
        self, theta: Tensor, query: Tensor, cotangents: Callable[[Tape], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """f [T, n, C], and `cotangents(tape)` of it pulled back to θ_steps, [T, K, p].

        The query's activations are freed before the chain of steps makes its own.
        """
        tape = self.engine.forward(self.layout.primal(theta), query)
        return tape.y, self._returned(tape, cotangents(tape))

    def _returned(self, tape: Tape, u: Tensor) -> Tensor:
        """Cotangents of θ_steps, [T, K, p], of those of the logits, [T, n, K, C]."""
        named = self.engine.vjp(tape, u, self.layout.names).parameters
        return self.layout.flatten(named, len(tape.y), u.shape[2], u)


def _stack(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Support examples, their labels and query examples of T tasks."""
    return channels_last(batch.support_x), batch.support_y, channels_last(batch.query_x)
