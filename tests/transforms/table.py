"""The ops that other code may differentiate, each as a function of its real tensors beside what it must agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tlxml_fast.ops import OPS, proto_logits
from tlxml_fast.ops.prototypes import class_means, prototype_logits

# Whole tasks of MAML are for the engine alone: their derivatives are ops of their own.
ENGINE_ONLY = "maml_mlp"


@dataclass(frozen=True)
class Case:
    """`function` and `reference` of the tensors in `inputs`, float64; all results joined to one vector."""

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    def scalar(self, *inputs: Tensor) -> Tensor:
        """A number that every result has a part in, and not linearly."""
        return weighted(self.function(*inputs))

    def scalar_reference(self, *inputs: Tensor) -> Tensor:
        """The same of the reference."""
        return weighted(self.reference(*inputs))

    def tangents(self) -> tuple[Tensor, ...]:
        """A direction for every input."""
        g = torch.Generator().manual_seed(3)
        return tuple(torch.randn(x.shape, generator=g, dtype=x.dtype) for x in self.inputs)


def weighted(y: Tensor) -> Tensor:
    """Σ_i w_i sin y_i, with weights that differ."""
    return (torch.linspace(-1, 1, len(y), dtype=y.dtype) * y.sin()).sum()


def _of_tensors(call: Callable[..., Any], arguments: tuple, named: dict[str, Any]) -> Callable[..., Tensor]:
    """`call` as a function of the real tensors among its arguments; a record of what a forward pass left stays."""
    real = [i for i, a in enumerate(arguments) if _is_real(a)]

    def function(*given: Tensor) -> Tensor:
        filled = list(arguments)
        for i, x in zip(real, given, strict=True):
            filled[i] = x
        results = call(*filled, **named)
        parts = [results] if isinstance(results, Tensor) else results
        return torch.cat([part.flatten() for part in parts if _is_real(part)])

    return function


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _case(
    name: str, function: Callable, reference: Callable, arguments: tuple, named: dict[str, Any]
) -> Case:
    inputs = tuple(filter(_is_real, arguments))
    return Case(
        name, _of_tensors(function, arguments, named), _of_tensors(reference, arguments, named), inputs
    )


def _head() -> list[Case]:
    """The ProtoNet head, against class means and distances written out."""
    g = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (6, 3))
    y = torch.arange(6) % 3

    def by_hand(distance: str) -> Callable[[Tensor, Tensor], Tensor]:
        def logits(s: Tensor, q: Tensor) -> Tensor:
            c = torch.stack([s[y == k].mean(0) for k in range(3)])
            apart = ((q[:, None] - c) ** 2).sum(-1)
            if distance == "cosine":
                lengths = ((q**2).sum(-1) + 1e-12).sqrt()[:, None] * ((c**2).sum(-1) + 1e-12).sqrt()
                return q @ c.T / lengths
            return -apart if distance == "sqeuclidean" else -(apart + 1e-12).sqrt()

        return logits

    found = [
        _case(
            f"proto_logits-{distance}",
            lambda s, q, d=distance: proto_logits(s, q, y, ways=3, distance=d),
            by_hand(distance),
            (support, query),
            {},
        )
        for distance in ("sqeuclidean", "euclidean", "cosine")
    ]
    means = _case(
        "class_means", lambda s: class_means(s, y, 3), lambda s: s.view(2, 3, 4).mean(0), (support,), {}
    )
    apart = _case(
        "prototype_logits",
        prototype_logits,
        lambda z, c: -((z[:, None] - c) ** 2).sum(-1),
        (query, support[:3]),
        {},
    )
    return [*found, means, apart]


def _ops() -> list[Case]:
    made = []
    for name, op in OPS.items():
        if not name.startswith(ENGINE_ONLY):
            arguments, named = op.example(torch.float64, torch.Generator().manual_seed(1))
            made.append(_case(name, op.function, op.reference, arguments, named))
    return made


CASES = {case.name: case for case in [*_head(), *_ops()]}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
