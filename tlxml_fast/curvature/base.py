"""Curvatures of the objective L(ω) = (1/M) Σ_t L_t(ω) + (δ/2)‖ω‖²."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..linearize import Linearization
from ..linearize.buckets import Buckets
from ..progress import progress_bar

# Columns of the identity in one product while a matrix is assembled.
COLUMNS_AT_ONCE = 256
# A matrix that should be symmetric, and is not by this much, was not computed right.
ASYMMETRY = 1e-3


class Curvature(ABC):
    """The matrix that stands for the second derivative of the objective."""

    name: str

    @abstractmethod
    def product(self, lin: Linearization, t: int, V: Tensor) -> Tensor:
        """The matrix of task t times K vectors: [K, q] → [K, q]."""

    def ways_to_assemble(self, lin: Linearization) -> dict[str, Callable[[int], Tensor]]:
        """Functions of a task index that give its dense matrix, [q, q], by what they are called."""

        def products(t: int) -> Tensor:
            identity = torch.eye(lin.q, dtype=lin.dtype, device=lin.device)
            return torch.cat([self.product(lin, t, V).double() for V in identity.split(COLUMNS_AT_ONCE)])

        return {f"{lin.q} products a task": products}

    def seconds(self, lin: Linearization) -> dict[str, float]:
        """A measured estimate of the seconds a task takes each way; called only where there is a choice."""
        return dict.fromkeys(self.ways_to_assemble(lin), 0.0)

    def describe(self) -> dict[str, Any]:
        """JSON for results."""
        return {"curvature": self.name}


@dataclass
class CurvatureOperator:
    """A curvature at M tasks, with the weight decay on its diagonal: what an inverse is fitted to."""

    curvature: Curvature
    buckets: Buckets
    decay: Tensor
    """δ for each of the q meta-parameters."""
    progress: bool = False
    decisions: list[str] = field(default_factory=list)

    @property
    def q(self) -> int:
        """The number of meta-parameters."""
        return len(self.decay)

    @property
    def dtype(self) -> torch.dtype:
        """The precision the tasks are computed in."""
        return self.buckets.linearizations[0].dtype

    def dense(self) -> Tensor:
        """(1/M) Σ_t C_t + diag δ in float64, [q, q], each shape assembled the way measured to be cheapest."""
        total = torch.zeros(self.q, self.q, dtype=torch.float64, device=self.decay.device)
        with progress_bar(f"{self.curvature.name} matrix", len(self.buckets), self.progress) as advance:
            for lin in self.buckets.linearizations:
                assemble = self._cheapest(lin)
                for t in range(lin.T):
                    total += assemble(t)
                    advance()
        total /= len(self.buckets)
        if not torch.isfinite(total).all():
            raise CurvatureError(f"the {self.curvature.name} matrix is not finite")
        asymmetry = float(
            (total - total.mT).abs().max() / total.abs().max().clamp_min(torch.finfo(total.dtype).tiny)
        )
        if asymmetry > ASYMMETRY:
            raise CurvatureError(
                f"the {self.curvature.name} matrix is not symmetric (by {asymmetry:.1e} of its largest entry): the "
                "model has a layer whose higher derivatives are wrong"
            )
        return (total + total.mT) / 2 + self.decay.double().diag()

    def _cheapest(self, lin: Linearization) -> Callable[[int], Tensor]:
        ways = self.curvature.ways_to_assemble(lin)
        seconds = self.curvature.seconds(lin) if len(ways) > 1 else dict.fromkeys(ways, 0.0)
        chosen = min(seconds, key=seconds.__getitem__)
        others = ", ".join(f"{s:.3g} s by {way}" for way, s in seconds.items() if way != chosen)
        measured = f" ({seconds[chosen]:.3g} s a task; {others})" if others else ""
        self.decisions.append(f"{lin.tasks[0].shape}: {chosen}{measured}")
        return ways[chosen]
