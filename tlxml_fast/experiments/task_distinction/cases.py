"""The raw numbers by case: a learner with a curvature, of all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...curvature import Hessian
from ..statistics import kendall

ALPHAS = tuple(i / 10 for i in range(11))
DAMPING = 1e-3  # of the largest |eigenvalue|: the alternative to a pseudo-inverse

Numbers = dict[str, Any]


class Case:
    """A learner with a curvature: what its seeds found.

    A point of the grid is how many eigen-directions the pseudo-inverse keeps, ALL of them, or None for the damped
    inverse.
    """

    ALL = 0

    def __init__(self, subject: str, curvature: str, found: Sequence[Numbers]):
        self.subject, self.curvature, self.found = subject, curvature, found
        self.each = [numbers["curvatures"][curvature] for numbers in found]
        self.images = found[0]["images"]
        """Whether the learner sees images; with batch statistics, as Conv4 has them."""

    @property
    def label(self) -> str:
        """As tables and legends show it."""
        return f"{self.subject}, {self.curvature.replace('_', ' ')}"

    @property
    def exact(self) -> bool:
        """Whether the curvature is the exact Hessian."""
        return self.curvature == Hessian.name

    @property
    def tasks(self) -> int:
        """Training tasks, as many as a self-rank can be."""
        return self.found[0]["tasks"]

    @property
    def ranks(self) -> list[int]:
        """The numbers of directions that all seeds have, without the last, which is each one's own."""
        return sorted(set.intersection(*(set(each["ranks"][:-1]) for each in self.each)))

    @property
    def points(self) -> list[int | None]:
        """All points of the grid."""
        return [*self.ranks, self.ALL, None]

    def own(self, what: str, point: int | None, alpha: float | None = None) -> np.ndarray:
        """`what` ("self_ranks" or "self_scores") of all seeds' tasks at a point, [seeds · tasks]."""
        rows = []
        for each in self.each:
            at = each if alpha is None else each["darkened"][str(alpha)]
            rows.append(at[what][_place(each["ranks"], point)])
        return np.concatenate(rows).astype(float)

    def first(self, point: int | None) -> float:
        """Share of the tasks that rank themselves first."""
        return float((self.own("self_ranks", point) == 1).mean())

    def darkened(self, what: str) -> np.ndarray:
        """`what` along α by the damped inverse, [seeds · tasks, alphas]."""
        return np.stack([self.own(what, None, alpha) for alpha in ALPHAS], 1)

    def trend(self, what: str) -> tuple[float, float, float]:
        """Kendall's τ between α and the mean over tasks, its p-value, and the share of tasks whose own τ is above 0."""
        series = self.darkened(what)
        tau, p = kendall(np.array(ALPHAS), series.mean(0))
        own, _ = kendall(np.broadcast_to(ALPHAS, series.shape), series)
        return float(tau), float(p), float((np.nan_to_num(own) > 0).mean())

    def negative(self) -> list[int]:
        """Negative eigenvalues beyond rounding to float32, of each seed."""
        counts = []
        for each in self.each:
            values = np.array(each["eigenvalues"])
            counts.append(int((values < -np.finfo(np.float32).eps * np.abs(values).max()).sum()))
        return counts


def cases_of(seeds: Mapping[int, Numbers]) -> list[Case]:
    """Every learner with every curvature."""
    found = list(seeds.values())
    return [
        Case(subject, curvature, [numbers[subject] for numbers in found])
        for subject, first in found[0].items()
        for curvature in first["curvatures"]
    ]


def _place(ranks: Sequence[int], point: int | None) -> int:
    return len(ranks) if point is None else len(ranks) - 1 if point == Case.ALL else ranks.index(point)
