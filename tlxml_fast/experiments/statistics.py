"""The statistics of the experiments: agreement of rankings, p-values, intervals, detection.

Pure functions of numpy arrays, in float64. Scores have the sign of I_perf: the smallest are the most helpful. Where
a statistic is undefined, of constant input above all, it is NaN, and nothing warns; NaN in gives NaN out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import combine_pvalues, kendalltau, rankdata

from ..errors import TlxError

PERMUTED_AT_ONCE = 2**22


class Agreement(NamedTuple):
    """Kendall's τ and its two-sided p-value."""

    tau: np.ndarray
    p: np.ndarray


class Combined(NamedTuple):
    """Stouffer's Z and its p-value: two-sided where signs were given, else one-sided."""

    z: float
    p: float


class Permuted(NamedTuple):
    """A difference of group means, and how often permuted labels give as much: more extreme, larger, smaller."""

    difference: float
    two_sided: float
    greater: float
    less: float


def spearman(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Spearman's ρ along the last axis: [..., n] twice → [...].

    Pearson's correlation of the ranks, ties at their mean rank (Spearman 1904). NaN where either is constant.
    """
    a, b = _alike(a, b)
    x, y = (_centred(rankdata(v, axis=-1)) for v in (a, b))
    return _quotient((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def kendall(a: ArrayLike, b: ArrayLike) -> Agreement:
    """Kendall's τ_b along the last axis, and its two-sided p-value: [..., n] twice → [...] twice.

        τ_b = (concordant − discordant) / √((n₀ − ties in a)(n₀ − ties in b)),  n₀ = n(n − 1)/2

    (Kendall 1945; scipy's `kendalltau`, exact p-values for small n without ties.) NaN where either is constant.
    """
    a, b = _alike(a, b)
    rows = [kendalltau(x, y) for x, y in zip(_rows(a), _rows(b), strict=True)]
    shape = a.shape[:-1]
    return Agreement(
        *(
            np.array([getattr(row, name) for row in rows]).reshape(shape)[()]
            for name in ("statistic", "pvalue")
        )
    )


def top_overlap(a: ArrayLike, b: ArrayLike, k: int) -> np.ndarray:
    """Share of the k most helpful (smallest) that two scorings have in common, |A ∩ B| / k: [..., n] twice → [...].

    Chance gives k/n. Equal scores keep their order, as in `Scores.helpful`.
    """
    a, b = _alike(a, b)
    _check_top(k, a.shape[-1])
    first, second = (np.argsort(v, axis=-1, kind="stable")[..., :k] for v in (a, b))
    common = (first[..., :, None] == second[..., None, :]).any(-1).mean(-1)
    return np.where(np.isnan(a).any(-1) | np.isnan(b).any(-1), np.nan, common)[()]


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[np.ndarray], float] = np.mean,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile interval (low, high) of `statistic(values)`, `values` resampled along the first axis.

    (Efron 1979.) To resample what several arrays share, give its indices and a statistic of indices. A single value
    has no interval: NaN twice.
    """
    values = np.asarray(values)
    if not 0 < level < 1:
        raise TlxError(f"level lies between 0 and 1, not {level}")
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    found = [statistic(values[draw]) for draw in draws]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def stouffer(p: ArrayLike, signs: ArrayLike | None = None, weights: ArrayLike | None = None) -> Combined:
    """p-values of independent repetitions of one test, combined: Z = Σ w_s z_s / √(Σ w_s²).

    p       [S], in (0, 1]. One-sided and all of the same direction, z_s = Φ⁻¹(1 − p_s), unless signs are given
    signs   [S], of each repetition's effect, where p are two-sided: z_s = sign_s Φ⁻¹(1 − p_s/2), so that opposite
            effects cancel; the result is two-sided, and Z has the sign of the common effect
    weights [S]; equal unless given

    (Stouffer et al. 1949; scipy's `combine_pvalues`.) One one-sided p of 1 makes the result 1, and permutation
    gives such: prefer two-sided p with signs. Raises TlxError for p outside (0, 1].
    """
    p = np.asarray(p, float)
    if p.ndim != 1 or not len(p) or not ((p > 0) & (p <= 1)).all():
        raise TlxError(f"p-values are a list of numbers above 0 and at most 1, not {p.tolist()}")
    if signs is not None:
        signs = np.sign(np.broadcast_to(np.asarray(signs, float), p.shape))
        p = 0.5 + signs * (p / 2 - 0.5)  # one-sided, of a positive effect
    z, one_sided = combine_pvalues(p, method="stouffer", weights=weights)
    return Combined(
        float(z), float(one_sided if signs is None else min(1, 2 * min(one_sided, 1 - one_sided)))
    )


def permutation_p(
    profile: ArrayLike, member: ArrayLike, permutations: int = 10_000, seed: int = 0
) -> Permuted:
    """Does the mean of a group differ from that of the others? Labels permuted over the training tasks.

        d = mean_{j∈J} a_j − mean_{j∉J} a_j,   p = (1 + #{|d'| ≥ |d|}) / (1 + permutations)

    and one-sided with d' ≥ d (`greater`) and d' ≤ d (`less`). The pairs of a test and a training task are not
    independent, so that average over the test tasks first: profile a [M], a number for each training task; member
    [M], bool. (Phipson and Smyth 2010, for the ones.) NaN where a group is empty.
    """
    a, member = np.asarray(profile, float), np.asarray(member, bool)
    if a.ndim != 1 or member.shape != a.shape:
        raise TlxError(f"a profile of shape {a.shape} and members of shape {member.shape}: give [M] twice")
    if permutations < 1:
        raise TlxError(f"permutations = {permutations}: a p-value needs at least one")
    inside = int(member.sum())
    if inside in (0, len(a)) or np.isnan(a).any():
        return Permuted(*[float("nan")] * 4)
    difference = float(a[member].mean() - a[~member].mean())
    # d is an increasing linear function of the sum over the group, and sums equal up to rounding count as equal
    a = a - a.mean()
    observed, slack = a[member].sum(), 1e-11 * np.abs(a).sum()
    rng = np.random.default_rng(seed)
    counts = np.zeros(3, int)
    at_once = max(1, PERMUTED_AT_ONCE // len(a))
    for start in range(0, permutations, at_once):
        tiled = np.tile(a, (min(at_once, permutations - start), 1))
        sums = rng.permuted(tiled, axis=1)[:, :inside].sum(1)
        far = np.abs(sums) >= abs(observed) - slack
        counts += [far.sum(), (sums >= observed - slack).sum(), (sums <= observed + slack).sum()]
    return Permuted(difference, *((1 + counts) / (1 + permutations)).tolist())


def matched_groups_p(
    profiles: ArrayLike,
    groups: Sequence[str],
    labels: Sequence[str],
    weights: ArrayLike,
    permutations: int = 10_000,
    seed: int = 0,
) -> Permuted:
    """Does the mean of matching members differ from that of the others, several groups together?

        d = Σ_g w_g (mean_{j: label_j = g} a_gj − mean_{j: label_j ≠ g} a_gj) / Σ_g w_g

    profiles [G, M], a_g of the test tasks of group g; groups [G], their names; labels [M], of the training tasks;
    weights [G], such as numbers of test tasks. One permutation of the labels serves all groups, and p-values are
    those of `permutation_p`. Groups without a match, or with nothing else, have no say; NaN if none has.
    """
    a, w = np.asarray(profiles, float), np.asarray(weights, float)
    if a.shape != (len(groups), len(labels)) or w.shape != (len(groups),):
        raise TlxError(f"profiles {a.shape} of {len(groups)} groups and {len(labels)} labels")
    match = np.array([[label == group for label in labels] for group in groups])
    inside = match.sum(1)
    w = np.where((inside > 0) & (inside < len(labels)), w, 0)
    if not w.sum() or np.isnan(a).any():
        return Permuted(*[float("nan")] * 4)
    with np.errstate(divide="ignore"):
        contrast = np.where(match, 1 / inside[:, None], -1 / (len(labels) - inside[:, None]))
    contrast = np.where(w[:, None] > 0, contrast, 0) * w[:, None] / w.sum()
    pairs = a.T @ contrast  # [M, M]: what member j gives in the place of member k
    place = np.arange(len(labels))
    observed, slack = float(np.trace(pairs)), 1e-11 * np.abs(pairs).sum()
    rng = np.random.default_rng(seed)
    counts = np.zeros(3, int)
    at_once = max(1, PERMUTED_AT_ONCE // len(labels))
    for start in range(0, permutations, at_once):
        order = rng.permuted(np.tile(place, (min(at_once, permutations - start), 1)), axis=1)
        found = pairs[order, place].sum(1)
        far = np.abs(found) >= abs(observed) - slack
        counts += [far.sum(), (found >= observed - slack).sum(), (found <= observed + slack).sum()]
    return Permuted(observed, *((1 + counts) / (1 + permutations)).tolist())


def linear_datamodelling_score(scores: ArrayLike, kept: ArrayLike, losses: ArrayLike) -> np.ndarray:
    """How well scores predict retraining on random subsets: Spearman's ρ over the S subsets, for each test task.

        predicted_i(s) = −(1/M) Σ_{j removed from s} I_perf(i, j)    against    losses[s, i]

    scores [n_test, M], I_perf; kept [S, M], bool, the tasks each subset was retrained on; losses [S, n_test], of the
    test tasks after it → [n_test], 1 at best, 0 by chance. (Park et al., TRAK, ICML 2023, equation 3.) NaN where the
    prediction or the loss is the same for all subsets.
    """
    scores, kept, losses = np.asarray(scores, float), np.asarray(kept, bool), np.asarray(losses, float)
    if scores.ndim != 2 or kept.shape[1:] != scores.shape[1:] or losses.shape != (len(kept), len(scores)):
        raise TlxError(
            f"scores {scores.shape}, kept {kept.shape} and losses {losses.shape} are not "
            "[n_test, M], [S, M] and [S, n_test]"
        )
    predicted = -(~kept).astype(float) @ scores.T / scores.shape[1]
    return spearman(predicted.T, losses.T)


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """P(score of a positive > score of a negative), equal scores counting half: the area under the ROC curve.

        (Σ ranks of positives − n₊(n₊ + 1)/2) / (n₊ n₋)

    score [n]; label [n], bool. (Hanley and McNeil 1982.) NaN where one of the classes is empty.
    """
    score, label = _labelled(score, label)
    positive = int(label.sum())
    negative = len(label) - positive
    return float(_quotient(rankdata(score)[label].sum() - positive * (positive + 1) / 2, positive * negative))


def precision_at(score: ArrayLike, label: ArrayLike, k: int) -> float:
    """Share of positives among the k of largest score; chance gives the share among all.

    Where equal scores straddle the k-th place, the expectation under a random order of them. score [n]; label [n].
    """
    score, label = _labelled(score, label)
    _check_top(k, len(score))
    if np.isnan(score).any():
        return float("nan")
    threshold = np.sort(score)[-k]
    above, tied = score > threshold, score == threshold
    return float((label[above].sum() + (k - above.sum()) * label[tied].mean()) / k)


def _alike(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim < 1:
        raise TlxError(f"rankings of shapes {a.shape} and {b.shape} cannot be compared")
    return a, b


def _labelled(score: ArrayLike, label: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    score, label = np.asarray(score, float), np.asarray(label, bool)
    if score.ndim != 1 or score.shape != label.shape:
        raise TlxError(f"scores of shape {score.shape} and labels of shape {label.shape}: give [n] twice")
    return score, label


def _check_top(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise TlxError(f"k = {k} is not between 1 and {n}")


def _rows(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1, a.shape[-1])


def _centred(a: np.ndarray) -> np.ndarray:
    return a - a.mean(-1, keepdims=True)


def _quotient(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """a/b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) != 0)[()]
