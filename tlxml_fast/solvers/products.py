"""The operator's products, counted and checked: passes over all tasks dominate whatever else a solver does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..curvature import CurvatureOperator
from ..errors import CurvatureError
from ..kept import Checkpoints, Tensors

# Vectors in one pass, where a sketch needs more.
AT_ONCE = 256
TAKEN = "passes and vectors taken"


class Products:
    """(C + diag δ)V by the operator, counting."""

    def __init__(self, operator: CurvatureOperator):
        self.operator = operator
        self.passes = 0
        self.vectors = 0
        self.doing = ""
        """What the passes are for, beside their bars; their number unless told."""

    def __call__(self, V: Tensor) -> Tensor:
        """[K, q] → [K, q] in float64. Raises CurvatureError where it is not finite."""
        self.passes += 1
        self.vectors += len(V)
        self.operator.doing = self.doing or f"pass {self.passes}"
        result = self.operator.product(V)
        if not torch.isfinite(result).all():
            raise CurvatureError("a product with the curvature is not finite")
        return result

    def without_decay(self, V: Tensor) -> Tensor:
        """C V, in passes of at most AT_ONCE vectors; those that an earlier run made are not made again."""
        checkpoints = self.checkpoints("products", {}, V)
        made, done = torch.empty_like(V), 0
        if (found := checkpoints.latest()) is not None:
            done = len(found["CV"])
            made[:done] = found.pop("CV")
        while done < len(V):
            part = V[done : done + AT_ONCE]
            made[done : done + len(part)] = self(part) - self.operator.decay * part
            done += len(part)
            checkpoints.offer(lambda: {"CV": made[:done]})  # noqa: B023 — taken at once
        return made

    def once(self, name: str, settings: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
        """What `compute` makes by products, read where a store has it; with the passes that it took, then or now."""
        before = self._taken()

        def counted() -> Tensors:
            return {**compute(), TAKEN: self._taken() - before}

        found = self.operator.factored(name, counted, settings)
        self._set(before + found.pop(TAKEN).cpu())
        return found

    def checkpoints(self, name: str, settings: Mapping[str, Any], *given: Tensor) -> Checkpoints:
        """Where an iteration by products keeps its state; passes that an earlier run took count as its own."""
        return _Counting(self, self.operator.checkpoints(name, settings, *given))

    def _taken(self) -> Tensor:
        return torch.tensor([self.passes, self.vectors])

    def _set(self, taken: Tensor) -> None:
        self.passes, self.vectors = taken.tolist()


class _Counting(Checkpoints):
    """Checkpoints with the passes that led to them."""

    def __init__(self, products: Products, checkpoints: Checkpoints):
        self.products, self.checkpoints = products, checkpoints
        self.before = products._taken()

    def latest(self) -> Tensors | None:
        """The state, on the operator's device, and the count as it was then."""
        found = self.checkpoints.latest()
        if found is None:
            return None
        self.products._set(self.before + found.pop(TAKEN))
        return {name: t.to(self.products.operator.device) for name, t in found.items()}

    def offer(self, state: Callable[[], Tensors]) -> None:
        """With the count as it is now."""
        self.checkpoints.offer(lambda: {**state(), TAKEN: self.products._taken() - self.before})


def rounding(operator: CurvatureOperator) -> float:
    """The relative error to be expected of an eigenvalue, of the largest."""
    return max(operator.q * torch.finfo(torch.float64).eps, torch.finfo(operator.dtype).eps)


def generator(seed: int) -> torch.Generator:
    """Random numbers of a seed, the same for every device: they are drawn on the CPU."""
    return torch.Generator().manual_seed(seed)


def gaussian(rows: int, columns: int, random: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal, [rows, columns], float64."""
    return torch.randn(rows, columns, generator=random, dtype=torch.float64).to(device)
