"""Scores along a grid of dampings, or of ranks: how much does the order of tasks hang on it?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import TlxError
from .scores import Scores

PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Sweep:
    """Scores of the same tasks at every point of a grid, in the order of its points.

    scores     `Scores` at each, whose info has the certificate
    """

    scores: tuple[Scores, ...]

    @property
    def certificates(self) -> tuple[dict[str, Any] | None, ...]:
        """How well each was solved."""
        return tuple(scores.info["certificate"] for scores in self.scores)

    def stability(self) -> Tensor:
        """Spearman's rank correlation of the scores of each test task, between every two points: [D, D, n_test].

        1 where a point could as well be another. Of per-query scores, the queries' mean.
        """
        ranks = torch.stack([_ranks(scores) for scores in self.scores])  # [D, n_test, n_train], unit rows
        return torch.einsum("atj,btj->abt", ranks, ranks)


@dataclass(frozen=True)
class RankSweep(Sweep):
    """Scores by pseudo-inverses of several ranks.

    ranks   how many eigen-directions each keeps, those of largest |λ|
    """

    ranks: tuple[int, ...]


@dataclass(frozen=True)
class DampingSweep(Sweep):
    """Scores at several dampings.

    dampings   λ, absolute
    """

    dampings: tuple[float, ...]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """A picture of how far ranks hang on the damping; a PNG, PDF or SVG by its name.

        Median and quartiles over test tasks of the rank correlation with the largest damping and with the next larger
        one, and the effective rank, against damping. TlxError for another kind of file, and where a damping is 0.
        """
        from .report.sweep import draw

        if (kind := Path(path).suffix) not in PICTURES:
            raise TlxError(f"{path}: a picture is a file that ends in {', '.join(PICTURES)}, not {kind!r}")
        if min(self.dampings) == 0:
            raise TlxError("the picture's axis of dampings is logarithmic, and one of them is 0")
        draw(self, path)


def _ranks(scores: Scores) -> Tensor:
    """Ranks of each test task's scores, centred and of unit length: their products are Spearman's correlation."""
    values = scores.values if scores.values.ndim == 2 else scores.values.nanmean(1)
    if values.shape[1] < 2:
        raise TlxError("the ranks of fewer than two training tasks cannot change")
    from scipy.stats import rankdata  # here, because importing it takes a noticeable part of a second

    ranks = torch.from_numpy(np.asarray(rankdata(values.numpy(), axis=1)))
    return torch.nn.functional.normalize(ranks - ranks.mean(1, keepdim=True), dim=1)
