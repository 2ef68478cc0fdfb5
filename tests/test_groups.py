"""Group tables against brute force, and the behaviour of their p-values."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

from tlxml_fast.errors import TlxError
from tlxml_fast.groups import group_matrix, group_table, holm
from tlxml_fast.scores import Scores, TaskAxis


def made_up(values, train_groups, test_groups=None, target="loss") -> Scores:
    values = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    test_groups = test_groups or [""] * values.shape[0]
    test = TaskAxis(
        *(tuple(f"{p}{i}" for i in range(len(test_groups))) for p in ("test ", "t")), tuple(test_groups)
    )
    train = TaskAxis(
        *(tuple(f"{p}{i}" for i in range(len(train_groups))) for p in ("train ", "j")), tuple(train_groups)
    )
    return Scores(values, test, train, torch.ones(len(train), dtype=torch.bool), target)


def random_scores(n_test=4, train_groups="aabbbc", seed=0, **kwargs) -> Scores:
    values = np.random.default_rng(seed).normal(size=(n_test, len(train_groups)))
    return made_up(values, list(train_groups), **kwargs)


def shuffled(scores: Scores, seed=1) -> Scores:
    order = np.random.default_rng(seed).permutation(len(scores.train)).tolist()
    axis = TaskAxis(
        *(
            tuple(column[i] for i in order)
            for column in (scores.train.names, scores.train.ids, scores.train.groups)
        )
    )
    return Scores(scores.values[:, order], scores.test, axis, scores.in_fit[order], scores.target)


@pytest.mark.parametrize("target", ["loss", "margin"])
def test_the_table_is_what_loops_give(target):
    scores = random_scores(target=target)
    values, groups = scores.values.numpy(), np.array(scores.train.groups)
    sign = -1 if target == "margin" else 1
    for row in group_table(scores, k=2, permutations=10):
        member = groups == row.group
        assert row.size == member.sum()
        assert row.base_rate == pytest.approx(member.mean())
        assert row.mean_influence == pytest.approx(values[:, member].mean())
        assert row.excess == pytest.approx(values[:, member].mean() - values.mean())
        helpful = [np.mean([member[j] for j in np.argsort(sign * line)[:2]]) for line in values]
        harmful = [np.mean([member[j] for j in np.argsort(-sign * line)[:2]]) for line in values]
        assert row.helpful_share == pytest.approx(np.mean(helpful))
        assert row.harmful_share == pytest.approx(np.mean(harmful))


def test_p_values_approach_those_of_every_permutation():
    scores = random_scores()
    values, groups = scores.values.numpy(), scores.train.groups
    top = np.zeros_like(values)
    np.put_along_axis(top, values.argsort(1)[:, :2], 0.5, axis=1)
    rows = group_table(scores, k=2, permutations=20_000)
    for row in rows:
        statistics = np.array(
            [
                (
                    values[:, member].mean() - values.mean(),
                    top[:, member].sum(1).mean() - row.base_rate,
                )
                for permuted in itertools.permutations(groups)
                for member in [[g == row.group for g in permuted]]
            ]
        )
        exact = (np.abs(statistics) >= np.abs(statistics[0]) - 1e-12).mean(0)
        assert row.p == pytest.approx(exact[0], abs=0.02)
        assert row.helpful_p == pytest.approx(exact[1], abs=0.02)


def test_the_matrix_is_the_table_of_each_test_group():
    scores = random_scores(5, "aabbbcca", test_groups=list("abbad"))
    matrix = group_matrix(scores, k=3, permutations=50)
    assert matrix.test_groups == ("a", "b", "d")
    assert matrix.train_groups == ("a", "b", "c")
    assert matrix.test_sizes == (2, 2, 1)
    for name, line in zip(matrix.test_groups, range(3), strict=True):
        rows = [i for i, group in enumerate(scores.test.groups) if group == name]
        part = made_up(scores.values[rows], list(scores.train.groups))
        table = group_table(part, k=3, permutations=50)
        assert matrix.mean_influence[line] == pytest.approx([row.mean_influence for row in table])
        assert matrix.helpful_share[line] == pytest.approx([row.helpful_share for row in table])
        assert matrix.p[line] == pytest.approx([row.p for row in table])
        assert matrix.helpful_p[line] == pytest.approx([row.helpful_p for row in table])


def test_same_group_share_by_hand():
    # the most helpful training task is of the test task's own group; the last test task's group is unknown
    scores = made_up([[-1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]], list("aabb"), list("abz"))
    same = group_matrix(scores, k=1, permutations=100).same_group
    assert (same.share, same.base_rate, same.n_test) == (1.0, 0.5, 2)
    assert group_matrix(scores, test_labels=list("xyz"), k=1, permutations=10).same_group is None


def test_a_planted_effect_is_found_and_named():
    groups = ["Greek", "Latin", "Lao", "Georgian"] * 32
    rng = np.random.default_rng(3)
    tests = ["Greek", "Latin"] * 8
    own = np.array([[test == train for train in groups] for test in tests])
    scores = made_up(rng.normal(size=own.shape) - 1.0 * own, groups, tests)
    matrix = group_matrix(scores)
    assert matrix.same_group.share > 2 * matrix.same_group.base_rate
    assert matrix.same_group.p == pytest.approx(1 / 2001)
    assert matrix.p_holm[0, matrix.train_groups.index("Greek")] < 0.01
    table = {row.group: row for row in group_table(scores)}
    assert table["Greek"].p_holm < 0.01
    assert table["Greek"].excess < 0
    assert table["Greek"].helpful_p_holm < 0.01


def test_under_the_null_p_is_about_uniform():
    # training tasks with effects of their own, shared by all test tasks: pairs are far from independent
    p, overall = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(1, 24)) + 0.3 * rng.normal(size=(6, 24))
        scores = made_up(values, list("abc") * 8, list("abc") * 2)
        p.append(group_table(scores, k=4, permutations=199)[0].p)
        overall.append(group_matrix(scores, k=4, permutations=199).same_group.p)
    for sample in (p, overall):
        assert np.mean(np.array(sample) <= 0.05) <= 0.12
    # shares come in few values, whose ties make their p conservative; the mean influence has none
    for level in (0.25, 0.5, 0.75):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.15)


def test_the_order_of_training_tasks_does_not_matter():
    scores = random_scores(5, "aabbbccadd", test_groups=list("abbad"))
    assert group_table(shuffled(scores), k=3) == group_table(scores, k=3)
    one, other = (group_matrix(s, k=3) for s in (scores, shuffled(scores)))
    assert one.same_group == other.same_group
    np.testing.assert_array_equal(one.p, other.p)


def test_the_seed_decides():
    scores = random_scores(5, "aabbbccadd")
    assert group_table(scores, k=3, seed=1) == group_table(scores, k=3, seed=1)
    assert group_table(scores, k=3, seed=1) != group_table(scores, k=3, seed=2)


def test_one_group_and_groups_of_one():
    (row,) = group_table(random_scores(3, "aaaa"), k=2)
    assert (row.p, row.helpful_p, row.base_rate) == (1, 1, 1)
    assert row.helpful_share == pytest.approx(1)
    assert row.excess == pytest.approx(0, abs=1e-15)
    for row in group_table(random_scores(3, "abcd"), k=99):
        assert row.size == 1
        assert 0 < row.p <= 1
        assert row.helpful_share == pytest.approx(0.25)  # k was lowered to the four there are
        assert row.helpful_p == 1


def test_labels_can_be_given():
    scores = random_scores(3, "aaaa")
    assert [row.group for row in group_table(scores, labels=["x", "y", "x", "y"], k=1)] == ["x", "y"]


def test_queries_are_averaged_and_padding_ignored():
    scores = random_scores(3, "aabb")
    noise = torch.randn(3, 1, 4, dtype=torch.float64)
    padding = torch.full((3, 1, 4), float("nan"), dtype=torch.float64)
    queries = torch.cat([scores.values[:, None] + noise, scores.values[:, None] - noise, padding], 1)
    split = Scores(queries, scores.test, scores.train, scores.in_fit)
    for one, other in zip(group_table(split, k=1), group_table(scores, k=1), strict=True):
        assert one.mean_influence == pytest.approx(other.mean_influence)
        assert one.p == other.p


def test_holm_as_published():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_bad_input_is_one_sentence():
    scores = random_scores(2, "aabb")
    with pytest.raises(TlxError, match="3 group labels for 4 training tasks"):
        group_table(scores, labels=["a", "b", "c"])
    with pytest.raises(TlxError, match="at least one most helpful"):
        group_table(scores, k=0)
    with pytest.raises(TlxError, match="at least one"):
        group_table(scores, permutations=0)
    values = scores.values.clone()
    values[1, 2] = float("nan")
    with pytest.raises(TlxError, match=r"'train 2' on test task 'test 1' is not finite"):
        group_table(made_up(values, list("aabb")))
    with pytest.raises(TlxError, match="nothing to compare"):
        group_table(made_up(np.zeros((0, 4)), list("aabb")))


def test_full_size_takes_seconds():
    scores = random_scores(64, "abcdef" * 86, test_groups=list("abcdefgh") * 8)
    start = time.perf_counter()
    group_table(scores)
    group_matrix(scores)
    assert time.perf_counter() - start < 20  # about one second; the margin is for a busy machine
