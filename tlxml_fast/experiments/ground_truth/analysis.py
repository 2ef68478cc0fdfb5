"""From raw numbers to correlations: predictions against each truth, for every test task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from ..statistics import auc, bootstrap, precision_at, spearman

TRUTHS = {
    "warm": "retrained from the minimum",
    "scratch": "retrained from the initialisation",
    "bregman": "proximal Bregman response",
}

Seeds = Mapping[int, dict[str, Any]]


class Agreement(NamedTuple):
    """Of a prediction and a truth, for every test task of all seeds, [N]."""

    spearman: np.ndarray
    pearson: np.ndarray
    slope: np.ndarray
    """Of the truth on the prediction, through the origin: 1 where the size is right."""


class Interval(NamedTuple):
    """A mean over test tasks and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def sizes(seeds: Seeds) -> list[int]:
    """The k of the removals."""
    return [removal["k"] for removal in _any(seeds)["removals"]]


def names(seeds: Seeds) -> list[str]:
    """The scorings."""
    return list(_any(seeds)["scores"])


def agreement(seeds: Seeds, k: int, truth: str, name: str) -> Agreement:
    """Of a scoring with a truth, over the groups of k tasks."""
    return _join([_compared(*pair) for pair in pairs(seeds, k, truth, name)])


def agreement_of_truths(seeds: Seeds, k: int, truth: str, other: str) -> Agreement:
    """Of one truth with another."""
    return _join(
        _compared(_changes(found, k, other), _changes(found, k, truth)) for found in _retrainings(seeds)
    )


def both(seeds: Seeds, k: int, truth: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All predictions and all changes, flat."""
    found = pairs(seeds, k, truth, name)
    return np.concatenate([p.ravel() for p, _ in found]), np.concatenate([c.ravel() for _, c in found])


def pairs(seeds: Seeds, k: int, truth: str, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and changes of every seed, [n_test, groups] twice, of the groups that the truth has."""
    found = [(_predicted(each, k, name), _changes(each, k, truth)) for each in _retrainings(seeds)]
    return [(p[:, : c.shape[1]], c) for p, c in found]


def chance(seeds: Seeds, k: int, truth: str, name: str, permutations: int = 2000) -> float:
    """How often a mean ρ is as large by chance: (1 + #{as large}) / (1 + permutations), one-sided.

    The groups of the predictions are permuted, alike for all test tasks, since these share the groups removed.
    """
    products = [_unit_ranks(p).T @ _unit_ranks(c) / len(c) for p, c in pairs(seeds, k, truth, name)]
    rng = np.random.default_rng(0)
    observed = sum(np.trace(product) for product in products)
    drawn = [
        sum(p[rng.permutation(len(p)), np.arange(len(p))].sum() for p in products)
        for _ in range(permutations)
    ]
    return float(1 + (np.array(drawn) >= observed - 1e-12).sum()) / (1 + permutations)


def means_change(seeds: Seeds, name: str) -> bool:
    """Whether a scoring's scores are meant as changes of loss."""
    return name in _any(seeds)["changes"]


def of(values: np.ndarray) -> Interval:
    """The mean over test tasks with its interval; test tasks without a value are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(*[float("nan")] * 3)
    return Interval(float(values.mean()), *bootstrap(values))


def retrainings(seeds: Seeds, k: int, truth: str) -> dict[str, np.ndarray]:
    """What minimisation reports of every group of k tasks, all seeds'."""
    each = [_removal(found, k)["truths"][truth] for found in _retrainings(seeds)]
    return {
        key: np.concatenate([np.array(one[key], float) for one in each])
        for key in ("distances", "evaluations", "converged")
    }


class Detection(NamedTuple):
    """How well corrupted tasks are found, a number a seed: [S]."""

    auc: np.ndarray
    precision: np.ndarray


def detection(seeds: Seeds, learner: str, name: str, by: str) -> Detection | None:
    """By the tasks' scores of themselves (`own`) or their mean scores (`mean`); None where there is no such score."""
    if by not in _scored(seeds, learner, name):
        return None
    found = suspicions(seeds, learner, name, by)
    precisions = [precision_at(suspicion, corrupted, int(corrupted.sum())) for suspicion, corrupted in found]
    return Detection(np.array([auc(*each) for each in found]), np.array(precisions))


def suspicions(seeds: Seeds, learner: str, name: str, by: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """How suspicious every training task is, and whether it was corrupted, [M] twice, of every seed.

    Suspicious is to be harmful to others, and to have much influence on oneself, which is negative.
    """
    sign = 1 if by == "mean" else -1
    return [
        (sign * np.array(found["learners"][learner][by][name], float), np.array(found["corrupted"], bool))
        for found in (numbers["detection"] for numbers in seeds.values())
    ]


def learners(seeds: Seeds) -> list[str]:
    """Those in which corrupted tasks were looked for."""
    return list(next(iter(seeds.values()))["detection"]["learners"])


# ---- inside -------------------------------------------------------------------------------------------


def _scored(seeds: Seeds, learner: str, name: str) -> list[str]:
    """`own`, `mean` or both."""
    found = next(iter(seeds.values()))["detection"]["learners"][learner]
    return [by for by in ("own", "mean") if name in found[by]]


def _any(seeds: Seeds) -> dict[str, Any]:
    return _retrainings(seeds)[0]


def _retrainings(seeds: Seeds) -> list[dict[str, Any]]:
    return [numbers["retraining"] for numbers in seeds.values()]


def _removal(found: Mapping[str, Any], k: int) -> dict[str, Any]:
    return next(removal for removal in found["removals"] if removal["k"] == k)


def _predicted(found: Mapping[str, Any], k: int, name: str) -> np.ndarray:
    """−(1/M) Σ_{j∈J} I_perf(i, j), [n_test, groups]."""
    scores = np.array(found["scores"][name], float)
    return np.stack([-scores[:, group].sum(1) for group in _removal(found, k)["groups"]], 1) / found["train"]


def _changes(found: Mapping[str, Any], k: int, truth: str) -> np.ndarray:
    """Of the test tasks' losses, [n_test, groups], or of the first few groups."""
    return np.array(_removal(found, k)["truths"][truth]["changes"], float).T


def _compared(predicted: np.ndarray, changes: np.ndarray) -> Agreement:
    groups = min(predicted.shape[1], changes.shape[1])
    p, c = predicted[:, :groups], changes[:, :groups]
    pc, cc = p - p.mean(1, keepdims=True), c - c.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = (pc * cc).sum(1) / np.sqrt((pc**2).sum(1) * (cc**2).sum(1))
        slope = (p * c).sum(1) / (p**2).sum(1)
    return Agreement(spearman(p, c), pearson, slope)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the rows, centred and of unit length: their products are Spearman's ρ. Constant rows are zero."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def _join(parts: Sequence[Agreement]) -> Agreement:
    return Agreement(*(np.concatenate(column) for column in zip(*parts, strict=True)))
