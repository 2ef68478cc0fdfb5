"""The Gauss-Newton matrix, sketched."""

from __future__ import annotations

from operator import index
from typing import Any

import torch
from torch import Tensor

from ..errors import CurvatureError
from ..linearize import Linearization
from .base import Curvature, Way
from .gram import gram
from .lanczos import lanczos
from .sketch import SKETCHES, Draws

KINDS = ("lanczos", *SKETCHES)
"""Names of sketches."""


class Fisher(Curvature):
    """Ĝ = (1/M) Σ_t R̂_tᵀR̂_t + δI with s rows R̂_t [s, q] a task and E Ĝ = G, the Gauss-Newton matrix.

    A row is the pull-back uᵀJ_t of a cotangent u [n·C] of the task's logits, with E Σ_k u_k u_kᵀ = Λ_t. The inverse of
    Ĝ is not unbiased for that of G: how many rows M·s it takes grows with the effective dimension tr G(G + λ)⁻¹.

    rows_per_task  s
    sketch         "krylov": the task's own gradient and further directions, as many as pay, exactly, and of what is
                   orthogonal to them mixes by random signs. Needs query labels.
                   "lanczos": s//2 directions exactly, from the task's own gradient on by its own matrix, and mixes
                   by random signs of what is orthogonal to them; s//2 − 1 forward products a task more. Needs
                   query labels, and a model that has forward mode.
                   "rademacher": mixes by random signs only.
                   "labels": u = (p − e_ŷ)/√(ns) with ŷ drawn from the model; cross-entropy only.
    seed           of the draws, 0 ≤ seed < 2⁶⁴; those for a task depend on it and on the task's content alone

    Costs s pull-backs a task and s·q numbers to keep; choosing the cotangents takes O(s·n·C² + s²·n·C) flops, in
    float64 on the CPU. Raises CurvatureError for a setting out of range and for labels of a regression.

    Fisher information and Gauss-Newton: Martens, New insights and perspectives on the natural gradient method, JMLR
    2020. Signs: Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990. Some directions exactly
    and what is left by chance: Meyer, Musco, Musco and Woodruff, Hutch++, SOSA 2021, whose case is the trace.
    """

    name = "Fisher"
    by_rows = True

    def __init__(self, rows_per_task: int, sketch: str = "krylov", seed: int = 0):
        self.rows_per_task = _whole("rows_per_task", rows_per_task, 1)
        self.seed = _whole("seed", seed, 0)
        if sketch not in KINDS:
            raise CurvatureError(f"sketch is one of {', '.join(KINDS)}, not {sketch!r}")
        self.sketch = sketch

    def row_count(self, lin: Linearization) -> int:
        """s."""
        return self.rows_per_task

    def rows(self, lin: Linearization, block: slice) -> Tensor:
        """R̂_t of each task of a block, [B, s, q]: E R̂_tᵀR̂_t = J_tᵀΛ_tJ_t."""
        if self.sketch == "lanczos":
            return lanczos(lin, block, self.rows_per_task, self._draws(lin, block))
        U = self.cotangents(lin, block).to(lin.omega)
        return torch.cat([lin.vjp_block(block, u) for u in U.split(lin.vectors_at_once(), 1)], 1)

    def cotangents(self, lin: Linearization, block: slice) -> Tensor:
        """What the rows are pull-backs of, [B, s, n, C], float64 on the CPU."""
        loss = lin.learner.loss
        if self.sketch not in SKETCHES:
            raise CurvatureError(f"the sketch {self.sketch!r} finds its cotangents row by row; ask for rows")
        if self.sketch == "labels" and loss.regression:
            raise CurvatureError('labels are drawn for cross-entropy; for regression use sketch="rademacher"')
        targets = lin.targets[block].cpu() if self.sketch == "krylov" else None
        logits = lin.logits[block].cpu().double()
        return SKETCHES[self.sketch](loss, logits, targets, self.rows_per_task, self._draws(lin, block))

    def _draws(self, lin: Linearization, block: slice) -> list[Draws]:
        return [Draws(self.seed, task.id) for task in lin.tasks[block]]

    def product(self, lin: Linearization, block: slice, V: Tensor) -> Tensor:
        """Σ_t R̂_tᵀR̂_t V."""
        R = self.rows(lin, block).flatten(0, 1)
        return (V @ R.mT) @ R

    def ways_to_assemble(self, lin: Linearization) -> list[Way]:
        """R̂ᵀR̂ of the rows."""

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


def _whole(name: str, value: int, least: int) -> int:
    try:
        whole = index(value)
    except TypeError:
        whole = -1
    if isinstance(value, bool) or not least <= whole < 2**64:
        raise CurvatureError(f"{name} is a whole number of at least {least}, not {value!r}")
    return whole
