"""Runs a plan: forward, JVP, VJP, and the JVP of the VJP, for T tasks × K vectors.

Each pass walks the steps of the plan once, forwards or backwards, and calls their layers. The primal values are
computed once (`Tape`) and shared by all vectors; what a pass leaves behind for the next is what its layers kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..profiling import span
from .hyperdual import Hyper
from .layers import Cotangents, Named
from .plan import Plan


@dataclass
class Tape:
    """A forward pass: what each step saved, and the output [T, N, C]."""

    saved: list[Any]
    y: Tensor

    @property
    def inputs(self) -> list[int]:
        """How many numbers each layer was given: what one vector's tangents take there."""
        return [_numbers(saved) for saved in self.saved]


@dataclass
class Tangents:
    """A JVP: what each step kept, and the tangents of the output [T, N, K, C], or None where they are zero."""

    kept: list[Any]
    dy: Tensor | None


@dataclass
class Reverse:
    """A VJP: the cotangent that reached each step, what it gave, and those of the parameters by name."""

    gy: list[Tensor | None]
    given: list[Cotangents | None]
    parameters: dict[str, Tensor]


def channels_last(x: Tensor) -> Tensor:
    """Examples as the plan takes them: [..., C, H, W] → [..., H, W, C]; vectors [T, N, F] as they are."""
    return x if x.ndim == 3 else x.permute(0, 1, 3, 4, 2).contiguous()


class Engine:
    """The passes over one plan."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.uses: list[frozenset[str]] = []
        """The parameters that value i + 1 depends on."""
        for step in plan.steps:
            own = frozenset(step.layer.names) if step.layer is not None else frozenset()
            self.uses.append(own.union(*(self.uses[i - 1] for i in step.inputs if i > 0)))

    def forward(self, w: Named, x: Tensor) -> Tape:
        """The output and everything derivatives need."""
        values, saved = [x], []
        for step in self.plan.steps:
            if step.layer is None:
                y, s = values[step.inputs[0]] + values[step.inputs[1]], None
            else:
                with span(f"{type(step.layer).__name__} forward"):
                    y, s = step.layer.forward(w, values[step.inputs[0]])
            values.append(y)
            saved.append(s)
        return Tape(saved, values[-1])

    def jvp(self, tape: Tape, dw: Named, keep: bool = False) -> Tangents:
        """Along K tangents of the parameters; kept for `hvp` if asked for, else memory is freed on the way."""
        tangents: list[Tensor | None] = [None]
        last_use = self._last_uses()
        kept: list[Any] = []
        for i, (step, saved) in enumerate(zip(self.plan.steps, tape.saved, strict=True)):
            given = [tangents[j] for j in step.inputs]
            if step.layer is None:
                dy, k = _sum(*given), None
            else:
                with span(f"{type(step.layer).__name__} jvp"):
                    dy, k = step.layer.jvp(saved, given[0], dw, keep)
            tangents.append(dy)
            kept.append(k if keep else None)
            for j in step.inputs:
                if last_use[j] == i:
                    tangents[j] = None
        return Tangents(kept, tangents[-1])

    def vjp(
        self, tape: Tape, gy: Tensor, wanted: frozenset[str], total: bool = False, keep: bool = False
    ) -> Reverse:
        """Cotangents [T, N, K, C] of the output pulled back to the parameters in `wanted`."""
        cotangents: list[Tensor | None] = [None] * len(self.plan.steps) + [gy]
        result = Reverse([None] * len(self.plan.steps), [None] * len(self.plan.steps), {})
        for i in reversed(range(len(self.plan.steps))):
            step, g = self.plan.steps[i], cotangents[i + 1]
            cotangents[i + 1] = None
            if g is None or not self.uses[i] & wanted:
                continue
            if step.layer is None:
                for j in step.inputs:
                    cotangents[j] = _sum(cotangents[j], g)
                continue
            source = step.inputs[0]
            need_x = source > 0 and bool(self.uses[source - 1] & wanted)
            with span(f"{type(step.layer).__name__} vjp"):
                back = step.layer.vjp(tape.saved[i], g, wanted, need_x, total, keep)
            _accumulate(result.parameters, back.parameters)
            if need_x:
                cotangents[source] = _sum(cotangents[source], back.x)
            if keep:
                result.gy[i], result.given[i] = g, Cotangents(None, kept=back.kept)
        return result

    def hvp(
        self, tape: Tape, reverse: Reverse, tangents: Tangents, dgy: Tensor | None, wanted: frozenset[str]
    ) -> dict[str, Tensor]:
        """The tangents of what `vjp` gave, along those of `jvp` and of the output's cotangent, dgy [T, N, K, C]."""
        cotangents: list[Tensor | None] = [None] * len(self.plan.steps) + [dgy]
        found: dict[str, Tensor] = {}
        for i in reversed(range(len(self.plan.steps))):
            step, dg = self.plan.steps[i], cotangents[i + 1]
            cotangents[i + 1] = None
            if not self.uses[i] & wanted:
                continue
            if step.layer is None:
                for j in step.inputs:
                    cotangents[j] = _sum(cotangents[j], dg)
                continue
            if reverse.gy[i] is None:
                continue
            source = step.inputs[0]
            need_x = source > 0 and bool(self.uses[source - 1] & wanted)
            with span(f"{type(step.layer).__name__} hvp"):
                back = step.layer.hvp(
                    tape.saved[i], reverse.gy[i], reverse.given[i], tangents.kept[i], dg, wanted, need_x
                )
            _accumulate(found, back.parameters)
            if need_x:
                cotangents[source] = _sum(cotangents[source], back.x)
        return found

    def no_third_order(self) -> str | None:
        """The first layer that has no passes in hyper-dual numbers; None if all have."""
        for step in self.plan.steps:
            if step.layer is not None and not step.layer.third_order:
                return step.label
        return None

    def hyper_gradient(
        self, w: Mapping[str, Hyper], x: Tensor, slope: Callable[[Hyper], Hyper]
    ) -> dict[str, Hyper]:
        """The gradient at hyper-dual parameters; `slope` gives the loss's ∂L/∂y of the output."""
        values, saved = [Hyper(x[..., None, :])], []
        for step in self.plan.steps:
            given = [values[j] for j in step.inputs]
            y, s = (
                (given[0] + given[1], None) if step.layer is None else step.layer.hyper_forward(w, given[0])
            )
            values.append(y)
            saved.append(s)
        cotangents: list[Hyper | None] = [None] * len(self.plan.steps) + [slope(values[-1])]
        found: dict[str, Hyper] = {}
        for i in reversed(range(len(self.plan.steps))):
            step, g = self.plan.steps[i], cotangents[i + 1]
            if g is None:
                continue
            back, named = (g, {}) if step.layer is None else step.layer.hyper_reverse(saved[i], g)
            for name, part in named.items():
                found[name] = found[name] + part if name in found else part
            for j in step.inputs:
                cotangents[j] = back if cotangents[j] is None else cotangents[j] + back
        return found

    def _last_uses(self) -> dict[int, int]:
        last = {}
        for i, step in enumerate(self.plan.steps):
            for j in step.inputs:
                last[j] = i
        return last


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _accumulate(into: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """A module that is called twice has the sum of both cotangents."""
    for name, g in more.items():
        into[name] = into[name] + g if name in into else g


def _numbers(saved: Any) -> int:
    """Of the inputs among what a layer saved."""
    if isinstance(saved, tuple):
        return sum(_numbers(part) for part in saved)
    x = getattr(saved, "x", None)
    return x.numel() if isinstance(x, Tensor) else 0
