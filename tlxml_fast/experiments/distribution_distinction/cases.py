"""The raw numbers by case, and their p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...groups import holm
from ..statistics import matched_groups_p, stouffer

DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
DAMPING = 1e-3  # of the largest eigenvalue
PERMUTATIONS = 5000

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A mixture, a learner, δ and whether tasks were augmented: what each seed found.

    An effect is mean influence of matching training families minus that of the others, on the test tasks of each
    group, averaged over test tasks; negative: one's own group helps more. It is given in standard deviations of the
    influence over families, so that cases can be compared.
    """

    mixture: str
    learner: str
    decay: float
    augmented: bool
    found: Sequence[Numbers]

    @property
    def label(self) -> str:
        """As tables show it."""
        return f"{self.learner}, δ = {self.decay:g}{', augmented' if self.augmented else ''}"

    @cached_property
    def tests(self) -> list[tuple[float, float]]:
        """(effect, two-sided p) of each seed."""
        return [_test(numbers, seed) for seed, numbers in enumerate(self.found)]

    @property
    def effect(self) -> float:
        """The mean over seeds."""
        return float(np.mean([effect for effect, _ in self.tests]))

    @cached_property
    def p(self) -> float:
        """Of all seeds together."""
        effects, p = zip(*self.tests, strict=True)
        return stouffer(p, np.sign(effects)).p

    @property
    def gap(self) -> float:
        """Train accuracy less test accuracy, the mean over seeds."""
        return float(np.mean([n["fit"]["train_accuracy"] - n["fit"]["test_accuracy"] for n in self.found]))

    def mean(self, *path: str) -> float:
        """The mean over seeds of a number."""
        values: list[Any] = list(self.found)
        for key in path:
            values = [value[key] for value in values]
        return float(np.mean(values))


def _test(numbers: Numbers, seed: int) -> tuple[float, float]:
    groups = list(numbers["profiles"])
    profiles = np.array([numbers["profiles"][group] for group in groups])
    found = matched_groups_p(
        profiles, groups, numbers["labels"], [numbers["tests"][g] for g in groups], PERMUTATIONS, seed
    )
    spread = float(np.average(profiles.std(1), weights=[numbers["tests"][g] for g in groups]))
    return found.difference / (spread or 1.0), found.two_sided


def cases_of(seeds: Mapping[int, Numbers]) -> list[Case]:
    """Every case, with the numbers of each seed."""
    by_seed = [numbers["cases"] for numbers in seeds.values()]
    names = ("mixture", "learner", "decay", "augmented")
    return [
        Case(*(first[name] for name in names), [cases[i] for cases in by_seed])
        for i, first in enumerate(by_seed[0])
    ]


def corrected(cases: Sequence[Case]) -> list[float]:
    """The cases' p-values by Holm."""
    return holm(np.array([case.p for case in cases])).tolist()
