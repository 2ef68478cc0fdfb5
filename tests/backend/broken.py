"""Backends with one thing wrong each, which the conformance suite must catch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tlxml_fast.backend import Scored, Solved
from tlxml_fast.backend.ours import Ours, compiled


class Changed:
    """Everything as of another object, some calls replaced: `change` maps a name to a function of the original call."""

    def __init__(self, original, changes):
        self._original, self._changes = original, changes

    def __getattr__(self, name):
        value = getattr(self._original, name)
        return self._changes[name](value) if name in self._changes else value


@dataclass(frozen=True)
class Broken(Ours):
    """The compiled backend with changes to what it linearizes and fits."""

    linearized: tuple = ()
    fitted: tuple = ()

    def linearize(self, learner, tasks, dtype=None):
        lin = compiled.linearize(learner, tasks, dtype)
        # members that a protocol's isinstance asks for must be there without being computed
        kind = type("Linearized", (Changed,), {n: property(lambda s, n=n: s.__getattr__(n)) for n in MEMBERS})
        return kind(lin, dict(self.linearized))

    def influence(self, *arguments, **named):
        fitted = compiled.influence(*arguments, **named)
        kind = type(
            "Fitted", (Changed,), {n: property(lambda s, n=n: s.__getattr__(n)) for n in ("solve", "scores")}
        )
        return kind(fitted, dict(self.fitted))


MEMBERS = ("logits", "losses", "gradients", "jvp", "vjp", "gnvp", "hvp")


def _scaled(call):
    return lambda *arguments: 2 * call(*arguments)


def _one_sum(call):
    """A mean over vectors creeps in: right for one vector at a time."""
    return lambda V, *rest: call(V, *rest) + 1e-3 * (len(V) - 1)


def _lies(call):
    def solve(B):
        X, certificate = call(B)
        return Solved(X * (1 + 1e-9), replace(certificate, residuals=(0.0,) * len(B)))

    return solve


def _half_precision(call):
    return lambda *arguments: call(*arguments).float().double()


BROKEN = {
    "losses are sums": ("values", {"losses": _scaled}, {}),
    "gradients are sums": ("gradients", {"gradients": _scaled}, {}),
    "vjp forgets a part": ("vjp", {"vjp": lambda call: lambda U: call(U * (U > 0))}, {}),
    "jvp swaps vectors": ("jvp", {"jvp": lambda call: lambda V: call(V).flip(1)}, {}),
    "weights are ignored": ("gnvp", {"gnvp": lambda call: lambda V, weights=None: call(V)}, {}),
    "hvp is Gauss-Newton's": ("hvp", {"hvp": lambda call: call.__self__.gnvp}, {}),
    "the number of vectors matters": ("invariance", {"gnvp": _one_sum}, {}),
    "single precision is called double": ("values", {"losses": _half_precision}, {}),
    "scores have the other sign": (
        "scores",
        {},
        {"scores": lambda call: lambda tests: Scored(-call(tests).values, call(tests).certificate)},
    ),
    "scores lie the other way": (
        "scores",
        {},
        {"scores": lambda call: lambda tests: Scored(call(tests).values.mT, call(tests).certificate)},
    ),
    "a wrong solution": (
        "solve",
        {},
        {"solve": lambda call: lambda B: Solved(1.001 * call(B).X, call(B).certificate)},
    ),
    "no certificate": (
        "solve",
        {},
        {"solve": lambda call: lambda B: Solved(call(B).X, replace(call(B).certificate, residuals=()))},
    ),
    "any length will do": (
        "refuses",
        {"gnvp": lambda call: lambda V, weights=None: call(V[:, : call.__self__.q], weights)},
        {},
    ),
}


def broken(name: str) -> tuple[str, Broken]:
    """The check that must catch it, and the backend."""
    check, linearized, fitted = BROKEN[name]
    return check, Broken(name, True, tuple(linearized.items()), tuple(fitted.items()))


class Meddler(Ours):
    """Trains the module a little while it looks at it."""

    def linearize(self, learner, tasks, dtype=None):
        with torch.no_grad():
            next(iter(learner.module.parameters())).add_(1e-12)
        return super().linearize(learner, tasks, dtype)


meddler = Meddler("meddler", True)
old = Changed(compiled, {"capabilities": lambda call: lambda: replace(call(), version=0)})
