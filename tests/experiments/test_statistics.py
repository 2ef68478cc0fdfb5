"""Each statistic against scipy, scikit-learn, or a closed form."""

from __future__ import annotations

import warnings
from itertools import permutations as every_order

import numpy as np
import pytest
from scipy import stats

from tlxml_fast.errors import TlxError
from tlxml_fast.experiments.statistics import (
    auc,
    bootstrap,
    kendall,
    linear_datamodelling_score,
    matched_groups_p,
    permutation_p,
    precision_at,
    spearman,
    stouffer,
    top_overlap,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_rank_correlations_are_scipys(rng, levels):
    a, b = rng.integers(levels, size=(2, 4, 17))
    tau, p = kendall(a, b)
    for i in range(4):
        assert spearman(a, b)[i] == pytest.approx(stats.spearmanr(a[i], b[i]).statistic)
        assert (tau[i], p[i]) == pytest.approx(tuple(stats.kendalltau(a[i], b[i])))
    assert spearman(a[0], b[0]) == pytest.approx(spearman(a, b)[0])


def test_correlations_know_order_only(rng):
    a = rng.normal(size=(3, 9))
    np.testing.assert_allclose(spearman(a, np.exp(a)), 1)
    np.testing.assert_allclose(spearman(a, -(a**3)), -1)
    np.testing.assert_allclose(kendall(a, -a).tau, -1)


def test_undefined_is_nan_without_a_warning(rng):
    constant, varied = np.ones((2, 5)), rng.normal(size=(2, 5))
    with_nan = np.where(np.arange(5) == 2, np.nan, varied)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for odd in (constant, with_nan):
            assert np.isnan(spearman(odd, varied)).all()
            assert np.isnan(kendall(varied, odd).tau).all()
        assert np.isnan(spearman(constant[:, :1], constant[:, :1])).all()
        assert np.isnan(top_overlap(with_nan, varied, 2)).all()
        assert np.isnan(auc([1.0, 2.0], [True, True]))
        assert np.isnan(bootstrap([1.0])).all()
        assert np.isnan(permutation_p([1.0, 2.0], [True, True])).all()
        assert np.isnan(linear_datamodelling_score(constant, np.eye(5) > 0, rng.normal(size=(5, 2)))).all()


def test_the_overlap_of_the_most_helpful():
    a = np.array([[-3.0, -2, -1, 0], [-3, -2, -1, 0], [0, 0, 0, 0]])
    b = np.array([[-2.0, -3, 0, 1], [0, -1, -2, -3], [0, -1, 0, 0]])
    assert top_overlap(a, b, 2).tolist() == [1, 0, 1]
    assert top_overlap(a, b, 1).tolist() == [0, 0, 0]
    assert top_overlap(a, b, 4).tolist() == [1, 1, 1]


def test_the_bootstrap_covers_a_mean_as_often_as_it_says(rng):
    hits = []
    for seed in range(300):
        low, high = bootstrap(rng.normal(size=40), np.mean, seed, level=0.9, resamples=200)
        hits.append(low <= 0 <= high)
    assert 0.83 < np.mean(hits) < 0.95


def test_the_bootstrap_is_that_of_its_seed(rng):
    values = rng.normal(size=15)
    assert bootstrap(values, np.median, 3) == bootstrap(values, np.median, 3)
    low, high = bootstrap(values, np.median, 3, level=0.5)
    assert bootstrap(values, np.median, 3)[0] < low < high < bootstrap(values, np.median, 3)[1]


def test_the_bootstrap_of_indices(rng):
    values = rng.normal(size=15)
    assert bootstrap(np.arange(15), lambda i: values[i].mean(), 1) == bootstrap(values, np.mean, 1)


def test_one_sided_p_values_are_combined_as_scipy_does(rng):
    p, weights = rng.uniform(0.01, 1, size=(2, 6))
    z, combined = stouffer(p, weights=weights)
    assert (z, combined) == pytest.approx(tuple(stats.combine_pvalues(p, "stouffer", weights)))


def test_two_sided_p_values_are_combined_with_their_direction():
    z = stats.norm.isf(0.02 / 2)
    same, opposite = stouffer([0.02, 0.02], [1, 1]), stouffer([0.02, 0.02], [1, -1])
    assert same == pytest.approx((z * 2**0.5, 2 * stats.norm.sf(z * 2**0.5)))
    assert opposite == pytest.approx((0, 1))
    assert stouffer([0.02, 0.02], [-1, -1]) == pytest.approx((-same.z, same.p))
    assert stouffer([0.02], [-0.3]).p == pytest.approx(0.02)
    assert stouffer([1.0, 0.02], [0, 1]).z == pytest.approx(z / 2**0.5)


def test_combined_p_values_of_no_effect_are_uniform(rng):
    effects = rng.normal(size=(2000, 3))
    p = [stouffer(2 * stats.norm.sf(np.abs(z)), z).p for z in effects]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_permutation_approaches_the_exact_test(rng):
    profile, member = rng.normal(size=7), np.arange(7) < 3
    found = permutation_p(profile, member, 40_000)
    means = np.array([p[:3].mean() - p[3:].mean() for p in map(np.array, every_order(profile))])
    d = profile[:3].mean() - profile[3:].mean()
    exact = (np.abs(means) >= abs(d) - 1e-12).mean(), (means >= d - 1e-12).mean(), (means <= d + 1e-12).mean()
    assert found.difference == pytest.approx(d)
    assert found[1:] == pytest.approx(exact, abs=0.01)


def test_a_permutation_p_is_never_zero_and_counts_ties():
    assert permutation_p(np.r_[np.ones(20), np.zeros(20)], np.arange(40) < 20, 99).greater == 0.01
    assert permutation_p(np.full(6, 0.1), np.arange(6) < 2, 99)[1:] == (1, 1, 1)


def test_sums_that_are_equal_up_to_rounding_are_equal(rng):
    whole, member = rng.integers(10, size=30), np.arange(30) < 7
    assert permutation_p(whole / 10, member, 2000)[1:] == permutation_p(whole, member, 2000)[1:]


def test_the_permutation_p_depends_on_the_seed_only(rng, monkeypatch):
    profile, member = rng.normal(size=30), rng.random(30) < 0.3
    whole = permutation_p(profile, member, 500, seed=4)
    monkeypatch.setattr("tlxml_fast.experiments.statistics.PERMUTED_AT_ONCE", 64)
    assert permutation_p(profile, member, 500, seed=4) == whole


def test_scores_that_are_true_have_a_datamodelling_score_of_one(rng):
    scores, kept = rng.normal(size=(4, 12)), rng.random((50, 12)) < 0.5
    losses = np.array([[-sum(row[~keep]) / 12 for row in scores] for keep in kept])
    np.testing.assert_allclose(linear_datamodelling_score(scores, kept, losses), 1)
    np.testing.assert_allclose(linear_datamodelling_score(-scores, kept, losses), -1)
    assert (
        abs(linear_datamodelling_score(rng.normal(size=(400, 12)), kept, rng.normal(size=(50, 400))).mean())
        < 0.05
    )


@pytest.mark.parametrize("levels", [4, 1000], ids=["ties", "no ties"])
def test_the_area_under_the_curve_is_scikit_learns(rng, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    score, label = rng.integers(levels, size=50), rng.random(50) < 0.2
    assert auc(score, label) == pytest.approx(metrics.roc_auc_score(label, score))


def test_precision_among_the_first():
    assert precision_at([3, 2, 1, 0], [True, False, True, False], 2) == 0.5
    assert precision_at([3, 1, 1, 1, 1], [True, True, False, False, False], 2) == pytest.approx(
        (1 + 0.25) / 2
    )
    assert precision_at([0, 0, 0, 0], [True, False, False, False], 1) == 0.25


@pytest.mark.parametrize(
    "call",
    [
        lambda: spearman([1.0], [1.0, 2.0]),
        lambda: top_overlap([1.0, 2.0], [1.0, 2.0], 3),
        lambda: bootstrap([1.0, 2.0], level=95),
        lambda: stouffer([0.0, 0.5]),
        lambda: permutation_p([1.0], [True, False]),
        lambda: permutation_p([1.0, 2.0], [True, False], 0),
        lambda: linear_datamodelling_score(np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 4))),
        lambda: auc([1.0], [True, False]),
        lambda: precision_at([1.0], [True], 0),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(TlxError):
        call()


def test_matched_groups_are_a_permutation_test_of_all_orders(rng):
    profiles, labels, weights = rng.normal(size=(2, 6)), list("aabbcc"), np.array([3.0, 1.0])

    def statistic(order):
        of = np.array(labels)[list(order)]
        apart = [a[of == g].mean() - a[of != g].mean() for a, g in zip(profiles, "ab", strict=True)]
        return np.average(apart, weights=weights)

    observed = statistic(range(6))
    exact = np.mean([abs(statistic(o)) >= abs(observed) - 1e-12 for o in every_order(range(6))])
    found = matched_groups_p(profiles, ["a", "b"], labels, weights, permutations=20_000)
    assert found.difference == pytest.approx(observed)
    assert found.two_sided == pytest.approx(exact, abs=0.02)


def test_one_matched_group_is_a_difference_of_means(rng):
    profile, labels = rng.normal(size=9), list("xxxxyyyyy")
    one = matched_groups_p(profile[None], ["x"], labels, [5], permutations=20_000)
    other = permutation_p(profile, np.array(labels) == "x", permutations=20_000)
    np.testing.assert_allclose(one, other, atol=0.02)


def test_a_group_without_a_match_has_no_say(rng):
    profiles, labels = rng.normal(size=(2, 5)), list("aabbb")
    both = matched_groups_p(profiles, ["a", "z"], labels, [1, 9])
    alone = matched_groups_p(profiles[:1], ["a"], labels, [1])
    np.testing.assert_allclose(both, alone, atol=1e-12)
    assert np.isnan(matched_groups_p(profiles[1:], ["z"], labels, [1])).all()
