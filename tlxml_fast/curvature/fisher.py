"""The Gauss-Newton matrix, sketched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..linearize import Linearization
from .base import Curvature, Way
from .gram import gram
from .sketch import SKETCHES, generator


class Fisher(Curvature):
    """Ĝ = (1/M) Σ_t R_tᵀR_t with s random rows a task, E Ĝ = G; its inverse is not unbiased for that of G.

    A row is one pull-back of a random cotangent of the logits of all queries, R_t = J_tᵀ-images of u_1 … u_s with
    E Σ_k u_k u_kᵀ = Λ_t. What is drawn for a task hangs on the seed and on its content alone.

    rows_per_task  s
    sketch         "labels": drawn from the model, row = (ns)^{-1/2} Σ_m (p_m − e_ŷm)ᵀJ_m; cross-entropy only.
                   "rademacher": independent signs mix the columns of the factor of Λ
    seed           of the draws

    s pull-backs and s·q numbers a task. (Fisher information and Gauss-Newton: Martens, New insights and perspectives on
    the natural gradient method, JMLR 2020.)
    """

    name = "Fisher"
    by_rows = True

    def __init__(self, rows_per_task: int, sketch: str = "rademacher", seed: int = 0):
        if not isinstance(rows_per_task, int) or rows_per_task < 1:
            raise CurvatureError(f"rows_per_task is a whole number of at least 1, not {rows_per_task!r}")
        if sketch not in SKETCHES:
            raise CurvatureError(f"sketch is one of {', '.join(SKETCHES)}, not {sketch!r}")
        self.rows_per_task, self.sketch, self.seed = rows_per_task, sketch, seed

    def row_count(self, lin: Linearization) -> int:
        """s."""
        return self.rows_per_task

    def rows(self, lin: Linearization, block: slice) -> Tensor:
        """R_t of each task of a block, [B, s, q]."""
        loss = lin.learner.loss
        if self.sketch == "labels" and loss.regression:
            raise CurvatureError('labels are drawn for cross-entropy; for regression use sketch="rademacher"')
        draw = SKETCHES[self.sketch]
        tasks = [lin.tasks[i] for i in range(lin.T)[block]]
        U = torch.stack(
            [
                draw(loss, logits, self.rows_per_task, generator(self.seed, task.id))
                for logits, task in zip(lin.logits[block], tasks, strict=True)
            ]
        )
        return lin.vjp_block(block, U)

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """Σ_t R_tᵀR_t V."""
        R = self.rows(lin, block).flatten(0, 1)
        return (V @ R.mT) @ R

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """RᵀR of the rows."""

        def assemble(block: slice) -> Tensor:
            return gram(self.rows(lin, block).flatten(0, 1))

        first = slice(0, 1)
        name = f"{self.rows_per_task} sketched rows a task"
        return [Way(name, assemble, lambda: self.rows(lin, first), self.rows_per_task, side_by_side=True)]

    def describe(self) -> dict[str, Any]:
        """JSON for results."""
        return {
            "curvature": self.name,
            "rows_per_task": self.rows_per_task,
            "sketch": self.sketch,
            "seed": self.seed,
        }
