"""The raw numbers of all seeds, as conclusions and drawings ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .compared import BASELINE, EXACT_HESSIAN, GAUSS_NEWTON, NO_CURVATURE

QUARTILES = (25, 50, 75)
REFERENCES = (EXACT_HESSIAN, GAUSS_NEWTON)


@dataclass(frozen=True)
class Results:
    """What `Approximation.one_seed` returned, for each seed."""

    seeds: Mapping[int, dict[str, Any]]

    @property
    def cases(self) -> list[str]:
        """The learners, in order."""
        return list(next(iter(self.seeds.values())))

    def of(self, case: str) -> list[tuple[int, dict[str, Any]]]:
        """A learner's numbers, seed by seed."""
        return [(seed, numbers[case]) for seed, numbers in self.seeds.items()]

    def methods(self, case: str) -> dict[str, str]:
        """Methods and their families, in order; those that were not refused for every seed."""
        return {m["name"]: m["family"] for _, numbers in self.of(case) for m in numbers["methods"]}

    def simple(self, case: str) -> list[str]:
        """Methods without any curvature."""
        return [name for name, family in self.methods(case).items() if family in (BASELINE, NO_CURVATURE)]

    def references(self, case: str) -> list[str]:
        """What a learner's scores are compared with: the exact Hessian's where there are any, then Gauss-Newton's."""
        return [name for name in REFERENCES if name in self.methods(case)]

    def fractions(self, case: str) -> list[float]:
        """The dampings, as shares of the largest eigenvalue."""
        return self.of(case)[0][1]["fractions"]

    def each(
        self, case: str, method: str, against: str, damping: int = 0, statistic: str = "spearman"
    ) -> dict[int, np.ndarray]:
        """A number for each test task, [n_test], by seed; NaN where it is undefined."""
        return {
            seed: np.array(found["agreement"][against][damping][statistic], float)
            for seed, found in self._all(case, method)
        }

    def quartiles(
        self, case: str, method: str, against: str, damping: int = 0, statistic: str = "spearman"
    ) -> tuple[float, float, float]:
        """Over test tasks and seeds, of those where it is defined; NaN where it nowhere is."""
        pooled = np.concatenate([*self.each(case, method, against, damping, statistic).values()])
        pooled = pooled[~np.isnan(pooled)]
        return tuple(np.percentile(pooled, QUARTILES)) if len(pooled) else (np.nan,) * 3

    def seconds(self, case: str, method: str) -> float | None:
        """Median over seeds; None where it was not timed by itself."""
        times = [found["seconds"] for _, found in self._all(case, method)]
        return None if None in times else float(np.median(times))

    def bytes(self, case: str, method: str) -> int:
        """What it holds."""
        return self._all(case, method)[0][1]["bytes"]

    def _all(self, case: str, method: str) -> list[tuple[int, dict[str, Any]]]:
        return [
            (seed, found)
            for seed, numbers in self.of(case)
            for found in numbers["methods"]
            if found["name"] == method
        ]
