"""How far two sets of scores agree, test task by test task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from .check import at_least, worst

TOP = 10
# Of normal scores, a rank correlation of 0.9 leaves 86% of all pairs of tasks in the same order, and 0.5 two of three;
# by chance it is half of them.
GOOD, DOUBTFUL = 0.9, 0.5


@dataclass(frozen=True)
class Agreement:
    """Scores [n_test, n_train] against others of the same tasks; each figure is [n_test]."""

    spearman: np.ndarray
    """Rank correlation of a test task's scores; NaN where they are all the same."""
    kendall: np.ndarray
    top: np.ndarray
    """The share that the k lowest and the k highest scores have in common, k = min(10, n_train / 2)."""
    same_sign: np.ndarray
    """The share of training tasks whose score has the same sign in both."""

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Agreement:
        """Of two matrices of scores."""
        x, y = a.double().cpu().numpy(), b.double().cpu().numpy()
        with np.errstate(invalid="ignore"):  # 0/0 where scores do not differ
            return cls(
                _correlation(rankdata(x, axis=1), rankdata(y, axis=1)),
                np.array([_kendall(row, other) for row, other in zip(x, y, strict=True)]),
                _overlap(x, y),
                (np.sign(x) == np.sign(y)).mean(1),
            )

    @property
    def grade(self) -> str:
        """By the median over test tasks of the rank correlation: good from 0.9 on, doubtful from 0.5 on."""
        return at_least(float(np.median(self.spearman)), GOOD, DOUBTFUL)

    def describe(self) -> dict[str, Any]:
        """JSON: medians over test tasks, and the lowest rank correlation."""
        return {
            "spearman": float(np.median(self.spearman)),
            "lowest_spearman": float(self.spearman.min()),
            "kendall": float(np.median(self.kendall)),
            "top_overlap": float(np.median(self.top)),
            "same_sign": float(np.median(self.same_sign)),
        }


def together(found: dict[str, Agreement]) -> tuple[str, dict[str, Any]]:
    """The worst grade of several, and their figures as name.figure."""
    values = {f"{name}.{key}": v for name, each in found.items() for key, v in each.describe().items()}
    return worst(each.grade for each in found.values()), values


def in_words(found: dict[str, Agreement]) -> str:
    """ "at λ/10 Spearman's ρ 0.98 (lowest 0.91), 90% of the ten at either end the same; …"."""
    return "; ".join(
        f"{name}: rank correlation {np.median(each.spearman):.2f} in the median and {each.spearman.min():.2f} at the "
        f"least, {np.median(each.top):.0%} of the extremes shared"
        for name, each in found.items()
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))


def _kendall(x: np.ndarray, y: np.ndarray) -> float:
    return float(kendalltau(x, y).statistic) if len(x) > 1 else float("nan")


def _overlap(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = max(1, min(TOP, x.shape[1] // 2))
    a, b = (np.argsort(m, axis=1, kind="stable") for m in (x, y))
    return np.array(
        [(len({*r[:k]} & {*s[:k]}) + len({*r[-k:]} & {*s[-k:]})) / (2 * k) for r, s in zip(a, b, strict=True)]
    )
