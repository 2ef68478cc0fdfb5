"""Backends with one thing wrong each, which the conformance suite must catch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from misbehaving import CASES as MISBEHAVING

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
        kind = type("Fitted", (Changed,), {n: property(lambda s, n=n: s.__getattr__(n)) for n in FITTED})
        return kind(fitted, dict(self.fitted))


MEMBERS = ("logits", "losses", "gradients", "jvp", "vjp", "gnvp", "hvp")
FITTED = ("solve", "scores")


def _scaled(call):
    return lambda *arguments: 2 * call(*arguments)


def _one_sum(call):
    """A mean over vectors creeps in: right for one vector at a time."""
    return lambda V, *rest: call(V, *rest) + 1e-3 * (len(V) - 1)


def _lies(call):
    def solve(B):
        X, certificate = call(B)
        return Solved(X * (1 + 5e-9), replace(certificate, residuals=(0.0,) * len(B)))

    return solve


def _half_precision(call):
    return lambda *arguments: call(*arguments).float().double()


def _certified(**fields):
    """Scores whose certificate says something else."""

    def change(call):
        def scores(tests):
            found = call(tests)
            return Scored(found.values, replace(found.certificate, **fields))

        return scores

    return change


def _eight(dimension):
    """Whatever comes after eight vectors is zero."""

    def change(call):
        def product(V, *rest):
            found = call(V, *rest)
            found.movedim(dimension, 0)[8:] = 0
            return found

        return product

    return change


def _single(call):
    """Twice as much in float32."""
    return lambda V, *rest: call(V, *rest) * (2 if V.dtype == torch.float32 else 1)


PLAIN, CONVOLVED = "MAML, ReLU", "MAML, Conv4"


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
    "a certificate that lies": ("solve", {}, {"solve": _lies}),
    "scores that did not converge": ("scores", {}, {"scores": _certified(converged=False)}),
    "scores of another damping": ("scores", {}, {"scores": _certified(damping=-7.0)}),
    "scores with residuals of their own": ("scores", {}, {"scores": _certified(residuals=(1e9, 1e9))}),
    "scores with the residual of one": ("scores", {}, {"scores": _certified(residuals=(0.0,))}),
    "jvp of eight vectors": ("jvp", {"jvp": _eight(1)}, {}),
    "vjp of eight vectors": ("vjp", {"vjp": _eight(1)}, {}),
    "gnvp of eight vectors": ("gnvp", {"gnvp": _eight(0)}, {}),
    "hvp of eight vectors": ("hvp", {"hvp": _eight(0)}, {}),
    "jvp in float32": ("single", {"jvp": _single}, {}),
    "vjp in float32": ("single", {"vjp": _single}, {}),
    "hvp in float32": ("single", {"hvp": _single}, {}),
}
WITH_BATCH_NORM = {
    "hvp is zero": ("hvp", {"hvp": lambda call: lambda V, weights=None: torch.zeros_like(V)}, {}),
    "hvp is Gauss-Newton's with BatchNorm": ("hvp", {"hvp": lambda call: call.__self__.gnvp}, {}),
}
ALL = (*BROKEN, *WITH_BATCH_NORM, *MISBEHAVING)


def broken(name: str) -> tuple[str, str, Ours]:
    """The check that must catch it, on which case, and the backend."""
    if name in MISBEHAVING:
        return MISBEHAVING[name]
    check, linearized, fitted = {**BROKEN, **WITH_BATCH_NORM}[name]
    case = CONVOLVED if name in WITH_BATCH_NORM else PLAIN
    return check, case, Broken(name, True, tuple(linearized.items()), tuple(fitted.items()))


old = Changed(compiled, {"capabilities": lambda call: lambda: replace(call(), version=0)})
