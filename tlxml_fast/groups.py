"""Do groups of training tasks differ? Group means, shares among the extremes, and permutation p-values.

Test × train pairs are not independent: every test task is scored by the same training tasks. So all p-values
here come from permuting the group labels over the *training* tasks, with one permutation for all test tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import TlxError
from .scores import Scores


@dataclass(frozen=True)
class GroupRow:
    """One group J of training tasks; shares and p-values as `group_table` defines them."""

    group: str
    size: int
    base_rate: float  # share of J among all training tasks
    mean_influence: float  # over all pairs of a test task and a task of J
    excess: float  # mean_influence minus the mean over all training tasks
    helpful_share: float  # share of J among the k most helpful, mean over test tasks
    harmful_share: float
    p: float  # of `excess`
    p_holm: float
    helpful_p: float  # of helpful_share − base_rate
    helpful_p_holm: float


@dataclass(frozen=True)
class SameGroup:
    """How often the k most helpful training tasks are of the test task's own group."""

    share: float
    base_rate: float
    p: float
    n_test: int  # test tasks whose group occurs among the training tasks: the others say nothing


@dataclass(frozen=True)
class GroupMatrix:
    """Test groups × train groups; every array is [n_test_groups, n_train_groups] unless it says otherwise."""

    test_groups: tuple[str, ...]
    train_groups: tuple[str, ...]
    test_sizes: tuple[int, ...]
    train_sizes: tuple[int, ...]
    base_rate: np.ndarray  # [n_train_groups]
    mean_influence: np.ndarray
    helpful_share: np.ndarray
    p: np.ndarray  # of mean_influence, against the mean of the same test group over all training tasks
    p_holm: np.ndarray  # corrected over all entries of the matrix
    helpful_p: np.ndarray
    helpful_p_holm: np.ndarray
    same_group: SameGroup | None  # None where no test task's group occurs among the training tasks
    k: int
    permutations: int


def group_table(
    scores: Scores,
    labels: Sequence[str] | None = None,
    k: int = 10,
    permutations: int = 2000,
    seed: int = 0,
) -> list[GroupRow]:
    """One row per group of training tasks, in sorted order.

    For a group J of M training tasks, with I the test × train scores:

        excess(J)         mean_{i, j∈J} I(i, j) − mean_{i, j} I(i, j)
        helpful_share(J)  mean_i |J ∩ {k most helpful to i}| / k, expected |J|/M

    Each is compared, two-sided, with its values when the group labels are permuted over the training tasks,
    p = (1 + #{|permuted| ≥ |observed|}) / (1 + permutations), then corrected over the groups by Holm.

    labels   one a training task; the tasks' own groups unless given
    k        at most the number of training tasks; a larger k is lowered to it

    Per-query scores are averaged over the queries first. The result depends on `seed`, and not on the order
    of the training tasks (but that equal scores rank by position).
    """
    data = _Pooled.of(scores, labels, k)
    everything = np.ones((1, len(scores.test))) / len(scores.test)
    p, _ = data.p_values(everything, permutations, seed)
    mean = (everything @ data.values @ data.member / data.sizes)[0]
    helpful, harmful = ((everything @ top @ data.member)[0] for top in (data.helpful, data.harmful))
    columns = (
        data.names,
        data.sizes.astype(int).tolist(),
        data.base_rate.tolist(),
        mean.tolist(),
        (mean - data.values.mean()).tolist(),
        helpful.tolist(),
        harmful.tolist(),
        p[0].tolist(),
        holm(p[0]).tolist(),
        p[1].tolist(),
        holm(p[1]).tolist(),
    )
    return [GroupRow(*row) for row in zip(*columns, strict=True)]


def group_matrix(
    scores: Scores,
    labels: Sequence[str] | None = None,
    test_labels: Sequence[str] | None = None,
    k: int = 10,
    permutations: int = 2000,
    seed: int = 0,
) -> GroupMatrix:
    """The table of `group_table` for each group of test tasks: do Greek tasks help Greek tests?

    Statistics and p-values are those of `group_table` with i running over one test group. The overall
    statistic, `same_group`, is the mean over test tasks of the share of their own group among their k most
    helpful training tasks, minus what chance gives, mean_i |group of i| / M; its p-value is two-sided too.
    """
    data = _Pooled.of(scores, labels, k)
    tests, rows = _indicator(
        scores.test.groups if test_labels is None else test_labels, len(scores.test), "test"
    )
    average = (rows / rows.sum(0)).T  # [n_test_groups, n_test]
    known = np.array([[test == train for train in data.names] for test in tests])
    own = known * rows.sum(0)[:, None]
    n_test = int(own.sum())
    combine = own / n_test if n_test else None
    p, p_same = data.p_values(average, permutations, seed, combine)
    helpful_share = average @ data.helpful @ data.member
    same = None
    if combine is not None:
        share, base = (combine * helpful_share).sum(), (combine * data.base_rate).sum()
        same = SameGroup(float(share), float(base), p_same, n_test)
    influence_p, helpful_p = p[: len(tests)], p[len(tests) :]
    return GroupMatrix(
        test_groups=tests,
        train_groups=data.names,
        test_sizes=tuple(rows.sum(0).astype(int).tolist()),
        train_sizes=tuple(data.sizes.astype(int).tolist()),
        base_rate=data.base_rate,
        mean_influence=average @ data.values @ data.member / data.sizes,
        helpful_share=helpful_share,
        p=influence_p,
        p_holm=holm(influence_p),
        helpful_p=helpful_p,
        helpful_p_holm=holm(helpful_p),
        same_group=same,
        k=data.k,
        permutations=permutations,
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction over all entries: p₍ᵢ₎ → max_{l≤i} min(1, (m − l + 1) p₍ₗ₎)."""
    flat = np.asarray(p, dtype=float).ravel()
    order = flat.argsort(kind="stable")
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(1, np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1)))
    return corrected.reshape(np.shape(p))


def per_task(scores: Scores) -> Scores:
    """The scores as test × train: per-query scores averaged over the queries a test task has.

    Raises TlxError where there is nothing to compare, or a score that is not finite.
    """
    if not len(scores.test) or not len(scores.train):
        raise TlxError(
            f"scores of {len(scores.test)} test × {len(scores.train)} training tasks leave nothing to compare"
        )
    # the loss of a task is the mean over its queries, and so is its score; the padding is NaN
    values = scores.values.double() if scores.values.ndim == 2 else scores.values.double().nanmean(1)
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        test, train = bad[0].tolist()
        raise TlxError(
            f"the score of training task {scores.train.names[train]!r} on test task "
            f"{scores.test.names[test]!r} is not finite"
        )
    return replace(scores, values=values)


@dataclass(frozen=True)
class _Pooled:
    """Scores and top-k indicators, [n_test, n_train], the training tasks in order of their id."""

    names: tuple[str, ...]
    values: np.ndarray
    helpful: np.ndarray  # 1/k where the training task is among the k most helpful: rows sum to one
    harmful: np.ndarray
    member: np.ndarray  # [n_train, n_groups], 0 or 1
    k: int

    @classmethod
    def of(cls, scores: Scores, labels: Sequence[str] | None, k: int) -> _Pooled:
        scores = per_task(scores)
        labels = scores.train.groups if labels is None else labels
        names, member = _indicator(labels, len(scores.train), "training")
        if k < 1:
            raise TlxError(f"k = {k}: ask for at least one most helpful task")
        k = min(k, len(scores.train))
        # sums and permutations then meet the tasks in the same order, however they were given
        keys = [*zip(scores.train.ids, map(str, labels), strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        tops = []
        for ranking in (scores.helpful(k), scores.harmful(k)):
            top = np.zeros(tuple(scores.values.shape))
            np.put_along_axis(top, ranking.indices.cpu().numpy(), 1 / k, axis=1)
            tops.append(top[:, order])
        return cls(names, scores.values.cpu().numpy()[:, order], *tops, member[order], k)

    @property
    def sizes(self) -> np.ndarray:
        """Training tasks in each group."""
        return self.member.sum(0)

    @property
    def base_rate(self) -> np.ndarray:
        """Share of each group among the training tasks."""
        return self.sizes / len(self.member)

    def p_values(
        self, average: np.ndarray, permutations: int, seed: int, combine: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Two-sided p-values [2R, n_groups] for R averages over test tasks, `average` [R, n_test].

        The first R rows are of the mean influence, the others of the helpful share; `combine` [R, n_groups]
        weighs the latter into one overall statistic, whose p-value comes second.

        Centred over the training tasks, both are sums over a group: with a_j the centred average at training
        task j, Σ_{j∈J} a_j is |J| times the excess, or the share less the base rate. As |J| is the same under
        every permutation, the sums have the p-values of what they stand for.
        """
        if permutations < 1:
            raise TlxError(f"permutations = {permutations}: a p-value needs at least one")
        profile = np.concatenate([average @ self.values, average @ self.helpful])
        profile -= profile.mean(1, keepdims=True)
        observed = profile @ self.member
        # equal up to rounding counts as equal: shares are multiples of 1/(k n_test), and ties are common
        slack = 1e-11 * np.abs(profile).sum(1, keepdims=True)
        half = len(average)
        weights = np.zeros((half, self.member.shape[1])) if combine is None else combine
        overall = np.abs((observed[half:] * weights).sum()) - (slack[half:] * weights).sum()

        rng = np.random.default_rng(seed)
        n = len(self.member)
        at_once = max(1, 2**23 // (profile.shape[0] * n))
        extreme, extreme_overall = np.zeros_like(observed), 0
        for start in range(0, permutations, at_once):
            count = min(at_once, permutations - start)
            order = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
            permuted = profile[:, order] @ self.member  # [2R, count, n_groups]
            extreme += (np.abs(permuted) >= (np.abs(observed) - slack)[:, None]).sum(1)
            sums = np.einsum("rpg,rg->p", permuted[half:], weights)
            extreme_overall += int((np.abs(sums) >= overall).sum())
        return (1 + extreme) / (1 + permutations), (1 + extreme_overall) / (1 + permutations)


def _indicator(labels: Sequence[str], expected: int, what: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted group names, and [n, n_groups] with a one at each task's group."""
    labels = [str(label) for label in labels]
    if len(labels) != expected:
        raise TlxError(f"{len(labels)} group labels for {expected} {what} tasks")
    names, positions = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return tuple(names.tolist()), np.eye(len(names))[positions]
