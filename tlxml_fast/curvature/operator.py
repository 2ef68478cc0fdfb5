"""A curvature at given tasks: what an inverse is fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..linearize import Linearization
from ..linearize.buckets import Buckets
from ..profiling import span
from ..progress import progress_bar
from .base import Curvature, Way

# A matrix that should be symmetric, and is not by this share of its largest entry, was not computed right.
ASYMMETRY = 1e-3


@dataclass
class CurvatureOperator:
    """(1/M) Σ_t C_t + diag δ over the M tasks of `buckets`."""

    curvature: Curvature
    buckets: Buckets
    decay: Tensor
    """δ for each of the q meta-parameters, [q]."""
    progress: bool = False
    decisions: list[str] = field(default_factory=list)
    """How the matrix of each shape was assembled, and why so."""

    @property
    def q(self) -> int:
        """The number of meta-parameters."""
        return len(self.decay)

    @property
    def dtype(self) -> torch.dtype:
        """The precision the tasks are computed in."""
        return self.buckets.linearizations[0].dtype

    def dense(self) -> Tensor:
        """The matrix in float64, [q, q], each shape assembled the cheapest way that works.

        Raises CurvatureError if it is not finite, or not symmetric.
        """
        total = torch.zeros(self.q, self.q, dtype=torch.float64, device=self.decay.device)
        with progress_bar(f"{self.curvature.name} matrix", len(self.buckets), self.progress) as advance:
            for lin in self.buckets.linearizations:
                way = self._cheapest(lin)
                with lin.task_threads(way.side_by_side, join=sum) as each:
                    for block, matrix in zip(lin.blocks, each(way.assemble, lin.blocks), strict=True):
                        with span("sum of matrices", total.numel(), 24 * total.numel(), dtype=torch.float64):
                            total += matrix
                        advance(len(lin.episodes[block]))
        total /= len(self.buckets)
        if not torch.isfinite(total).all():
            raise CurvatureError(f"the {self.curvature.name} matrix is not finite")
        scale = total.abs().max().clamp_min(torch.finfo(total.dtype).tiny)
        asymmetry = float((total - total.mT).abs().max() / scale)
        if asymmetry > ASYMMETRY:
            raise CurvatureError(
                f"the {self.curvature.name} matrix is not symmetric (by {asymmetry:.1e} of its largest entry): the "
                "model has a layer whose higher derivatives are wrong"
            )
        return (total + total.mT) / 2 + self.decay.double().diag()

    def _cheapest(self, lin: Linearization) -> Way:
        shape, failures = lin.tasks[0].shape, []
        for way in sorted(self.curvature.ways_to_assemble(lin), key=lambda way: way.passes):
            failure = _failure(lin, way)
            if failure is None:
                self.decisions.append("; ".join([f"{shape}: {way.name}", *failures]))
                return way
            failures.append(f"{way.name} do not work here ({failure})")
        raise CurvatureError(
            f"no way to assemble the {self.curvature.name} matrix works: {'; '.join(failures)}"
        )


def _failure(lin: Linearization, way: Way) -> str | None:
    """Why the model cannot go this way; None if it can."""
    try:
        with lin.task_threads(way.side_by_side) as each:
            list(each(lambda _: way.sample(), lin.blocks[:1]))
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None
