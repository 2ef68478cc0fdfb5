"""Numbers with two infinitesimals, v + a ε₁ + b ε₂ + ab ε₁ε₂ with ε₁² = ε₂² = 0: exact mixed second derivatives.

A gradient computed in them has ∇³L[a, b] + H·ab as the coefficient of ε₁ε₂, which is what the exact Hessian through an
inner step needs (its parameters carry θ̇ in a, Dλ in b and Dλ̇ in ab). K directions a and ab lie beside each other;
v and b are one, and broadcast. None is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Maybe = Tensor | None


@dataclass(frozen=True)
class Hyper:
    """v, and the coefficients of ε₁, ε₂ and ε₁ε₂."""

    v: Tensor
    a: Maybe = None
    b: Maybe = None
    ab: Maybe = None

    def map(self, linear: Callable[[Tensor], Tensor]) -> Hyper:
        """A linear function of all four."""
        return Hyper(linear(self.v), *(None if x is None else linear(x) for x in (self.a, self.b, self.ab)))

    def __add__(self, other: Hyper) -> Hyper:
        return Hyper(self.v + other.v, plus(self.a, other.a), plus(self.b, other.b), plus(self.ab, other.ab))

    def __sub__(self, other: Hyper) -> Hyper:
        return self + other.map(torch.neg)

    def __mul__(self, other: Hyper) -> Hyper:
        return bilinear(torch.mul, self, other)

    def scale(self, factor: float) -> Hyper:
        """A constant times it."""
        return self.map(lambda x: x * factor)

    def apply(self, value: Tensor, first: Tensor, second: Tensor) -> Hyper:
        """f of it, given f(v), f′(v) and f″(v)."""
        mixed = plus(times(first, self.ab), times(times(second, self.a), self.b))
        return Hyper(value, times(first, self.a), times(first, self.b), mixed)


def bilinear(f: Callable[[Tensor, Tensor], Tensor], x: Hyper, y: Hyper) -> Hyper:
    """f(x, y) for f linear in each."""

    def of(p: Maybe, q: Maybe) -> Maybe:
        return None if p is None or q is None else f(p, q)

    return Hyper(
        f(x.v, y.v),
        plus(of(x.a, y.v), of(x.v, y.a)),
        plus(of(x.b, y.v), of(x.v, y.b)),
        plus(plus(of(x.ab, y.v), of(x.a, y.b)), plus(of(x.b, y.a), of(x.v, y.ab))),
    )


def plus(p: Maybe, q: Maybe) -> Maybe:
    """The sum, where None is zero."""
    return q if p is None else p if q is None else p + q


def times(p: Maybe, q: Maybe) -> Maybe:
    """The product, where None is zero."""
    return None if p is None or q is None else p * q
