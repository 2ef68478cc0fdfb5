"""Differences of two agreements, or of two detections, with intervals that know of everything that was drawn.

Each draw resamples rows and columns by themselves (Owen, The pigeonhole bootstrap, 2007): the groups removed and the
test tasks, or the corrupted tasks and the clean ones; within each seed. How much seeds differ only several seeds say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .analysis import Interval, Seeds, pairs, suspicions

DRAWS = 500
LEVEL = 0.95


class Gain(NamedTuple):
    """Two mean ρ over the same groups, and their difference; `groups` of all seeds together."""

    ours: float
    theirs: float
    difference: Interval
    groups: int


def gain(seeds: Seeds, k: int, ours: tuple[str, str], theirs: tuple[str, str]) -> Gain:
    """What one (truth, scoring) agrees better than another, over the groups of k tasks that both have.

    ρ is computed anew in every draw. Test tasks where either ρ is undefined are left out.
    """
    rng = np.random.default_rng(0)
    drawn, groups = [], 0
    for first, second in zip(pairs(seeds, k, *ours), pairs(seeds, k, *theirs), strict=True):
        tasks, common = len(first[0]), min(first[0].shape[1], second[0].shape[1])
        groups += common
        counts = _counts(rng, common)
        rho = np.stack([_spearman(p[:, :common], c[:, :common], counts) for p, c in (first, second)])
        # the first row is what was observed
        chosen = rng.integers(tasks, size=(1 + DRAWS, tasks))
        chosen[0] = np.arange(tasks)
        drawn.append(np.take_along_axis(rho, chosen[None], 2))
    rho = np.concatenate(drawn, 2)
    rho[:, np.isnan(rho).any(0)] = np.nan
    first, second = _mean(rho)
    return Gain(float(first[0]), float(second[0]), _interval(first - second), groups)


def gain_of_detection(seeds: Seeds, learner: str, ours: tuple[str, str], theirs: tuple[str, str]) -> Interval:
    """What one (scoring, by) has more area under its ROC curve than another: the mean over seeds.

    No interval, NaN, where a seed has fewer than two corrupted or two clean tasks, of which nothing can be resampled.
    """
    rng = np.random.default_rng(0)
    gains = []
    for first, second in zip(
        suspicions(seeds, learner, *ours), suspicions(seeds, learner, *theirs), strict=True
    ):
        corrupted = first[1]
        bad, good = int(corrupted.sum()), int((~corrupted).sum())
        if min(bad, good) < 2:
            return Interval(*[float("nan")] * 3)
        counts = _counts(rng, bad), _counts(rng, good)
        gains.append(_auc(first[0], corrupted, *counts) - _auc(second[0], corrupted, *counts))
    return _interval(np.mean(gains, 0))


# ---- inside -------------------------------------------------------------------------------------------


def _counts(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each of n is drawn, [1 + DRAWS, n]; once each in the first row."""
    return np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), DRAWS)])


def _above(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 where a_i > b_j, ½ where they are equal: [..., n], [..., m] → [..., n, m]."""
    a, b = a[..., :, None], b[..., None, :]
    return (a > b) + 0.5 * (a == b)


def _spearman(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """ρ of every row under every resampling of the columns: [n, G] twice, [D, G] → [D, n].

    The mean rank of a value, less ½, is the number of drawn values below it, and half of those equal to it. So that
    ranks are a product with the counts, and ρ their weighted correlation.
    """
    weights = counts[:, None] / counts.sum(1)[:, None, None]
    x, y = (np.swapaxes(counts @ np.swapaxes(_above(v, v), 1, 2), 0, 1) for v in (a, b))
    x, y = (v - (weights * v).sum(-1, keepdims=True) for v in (x, y))
    covariance, of_x, of_y = ((weights * u * v).sum(-1) for u, v in ((x, y), (x, x), (y, y)))
    known = (of_x > 1e-9) & (of_y > 1e-9)  # ranks are halves: what is not constant varies by far more
    return np.divide(covariance, np.sqrt(of_x * of_y), out=np.full(known.shape, np.nan), where=known)


def _auc(suspicion: np.ndarray, corrupted: np.ndarray, bad: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of every draw, [D]."""
    pairs_won = _above(suspicion[corrupted], suspicion[~corrupted])
    return ((bad @ pairs_won) * good).sum(1) / (bad.sum(1) * good.sum(1))


def _mean(values: np.ndarray) -> np.ndarray:
    """Along the last axis, of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    total, many = np.where(known, values, 0).sum(-1), known.sum(-1)
    return np.divide(total, many, out=np.full(many.shape, np.nan), where=many > 0)


def _interval(values: np.ndarray) -> Interval:
    """Of a number observed, the first, and as drawn again."""
    observed, drawn = values[0], values[1:][~np.isnan(values[1:])]
    if np.isnan(observed) or not len(drawn):
        return Interval(*[float("nan")] * 3)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(observed), float(low), float(high))
