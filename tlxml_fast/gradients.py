"""The training tasks' own side of influence: ∇_ω L_t of each, shard by shard, and what they say of the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compression import Compression
from .kept import Column, Kept, Results, Tensors, digest
from .linearize import Linearization
from .linearize.buckets import Buckets
from .linearize.shards import Shards
from .progress import progress_bar


class Gradients:
    """∇_ω L_t, L_t and the query confidences of the tasks of `shards`; compressed and kept as they are produced.

    blocks       the gradients of this process's shards, [B, q] each
    positions    where their tasks stand among all
    losses       [m] of this process's m tasks
    confidences  the largest class probability of each of their queries; none for regression
    """

    def __init__(self, shards: Shards, kept: Kept, compression: Compression | None, progress: bool):
        self.shards, self.compression, self.world = shards, compression, shards.world
        losses, confidences = [], []
        kind = "gradients" if compression is None else f"gradients-{digest(compression.describe())}"
        results = Results(kept, kind, shards, self._of)
        self.blocks = Column(results, "gradients")
        with progress_bar("training gradients", shards.my_tasks, progress) as advance:
            for found in results:
                losses.append(found["losses"].double())
                confidences.append(found["confidences"].flatten())
                advance(len(losses[-1]), known=kept.found)
        none = shards.first.omega[:0]
        self.losses = torch.cat(losses) if losses else none.double()
        joined = torch.cat(confidences) if losses else none
        self.confidences = joined[~joined.isnan()]

    @property
    def positions(self) -> range:
        """Where this process's tasks stand among all."""
        first = self.shards.mine.start * self.shards.size
        return range(first, first + len(self.losses))

    def row(self, position: int) -> Tensor:
        """The gradient of one task, [q], float64, whichever process has it."""
        row = torch.zeros(self._width, dtype=torch.float64, device=self.shards.first.device)
        if position in self.positions:
            i, within = divmod(position, self.shards.size)
            row += self.blocks[i - self.shards.mine.start][within].double()
        return self.world.sum(row)

    def mean(self) -> Tensor:
        """(1/M) Σ_t ∇L_t, [q], float64."""
        total = torch.zeros(self._width, dtype=torch.float64, device=self.shards.first.device)
        for block in self.blocks:
            total += block.double().sum(0)
        return self.world.sum(total) / len(self.shards)

    def describe(self, decayed: Tensor) -> dict[str, Any]:
        """How the objective stands at ω; `decayed` is the gradient of its weight decay, δ∘ω."""
        norms = [block.double().norm(dim=1) for block in self.blocks]
        norms = self.world.cat(torch.cat(norms) if norms else self.losses[:0])
        confidences = self.world.cat(self.confidences)
        return {
            "mean_loss": float(self.world.cat(self.losses).mean()),
            "gradient_norm": float((self.mean() + decayed).norm()),
            "median_task_gradient_norm": float(np.median(norms.cpu())),
            "median_confidence": float(np.median(confidences.cpu())) if len(confidences) else None,
        }

    def _of(self, buckets: Buckets) -> Tensors:
        losses = torch.stack(buckets.gather(lambda lin, block: lin.losses()[block], lambda done: None))
        buckets.require_finite("loss", losses[:, None])

        rows = torch.stack(buckets.gather(Linearization.gradients_block, lambda done: None, one_vector=True))
        buckets.require_finite("gradient", rows)
        if self.compression is not None:
            rows = self.compression.store(rows)
        return {"losses": losses, "confidences": _confidences(buckets), "gradients": rows}

    @property
    def _width(self) -> int:
        return self.shards.first.q if self.compression is None else self.compression.dimension


def _confidences(buckets: Buckets) -> Tensor:
    """The largest class probability of every query, [B, n], NaN beyond a task's own and for regression."""
    if buckets.linearizations[0].learner.loss.regression:
        return torch.full((len(buckets), 1), torch.nan, device=buckets.linearizations[0].device)
    each = buckets.gather(lambda lin, block: lin.logits[block].softmax(-1).amax(-1), lambda done: None)
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=torch.nan)
