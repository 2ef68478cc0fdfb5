"""Sweeps give at every point what a fit there would give, from one factorisation."""

import pytest
import torch
from scipy.stats import spearmanr

import tlxml_fast as tlx
from tlxml_fast import CurvatureError, Dense, Lanczos, Relative, TaskInfluence

POOL = tlx.data.digits("all")


@pytest.fixture(scope="module")
def problem():
    train = POOL.sample(9, ways=3, shots=1, queries=3, seed=0)
    test = POOL.sample(4, ways=3, shots=1, queries=3, seed=1)
    learner = tlx.MAML(tlx.models.mlp(64, 3, 3, seed=0).double(), inner_lr=0.5)
    tlx.meta_train(learner, train, steps=20, batch_size=4, weight_decay=1e-2, progress=False)
    return learner, train, test


def test_a_damping_sweep_is_a_fit_at_each(problem):
    learner, train, test = problem
    dampings = (1e-1, Relative(1e-3))
    sweep = TaskInfluence(learner, inverse=Dense(1.0)).fit(train).damping_sweep(dampings, test)
    for damping, scores in zip(dampings, sweep.scores, strict=True):
        alone = TaskInfluence(learner, inverse=Dense(damping)).fit(train).scores(test)
        torch.testing.assert_close(scores.values, alone.values, rtol=1e-10, atol=0)


def test_a_rank_sweep_is_a_fit_at_each(problem):
    learner, train, test = problem
    sweep = TaskInfluence(learner, inverse=Dense(1.0)).fit(train).rank_sweep([3, 20], test)
    for rank, scores in zip(sweep.ranks, sweep.scores, strict=True):
        alone = TaskInfluence(learner, inverse=Dense(rank=rank)).fit(train).scores(test)
        torch.testing.assert_close(scores.values, alone.values, rtol=1e-10, atol=0)


def test_lanczos_sweeps_the_ranks_that_it_has(problem):
    learner, train, test = problem
    fitted = TaskInfluence(learner, inverse=Lanczos(6)).fit(train)
    alone = TaskInfluence(learner, inverse=Dense(rank=2)).fit(train).scores(test)
    torch.testing.assert_close(
        fitted.rank_sweep([2], test).scores[0].values, alone.values, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(CurvatureError, match="rank is 7, and 6 directions were computed"):
        fitted.rank_sweep([7], test)


def test_stability_is_spearmans_correlation(problem):
    learner, train, test = problem
    sweep = TaskInfluence(learner, inverse=Dense(1.0)).fit(train).rank_sweep([1, 5, 20], test)
    a, b = (scores.values[2].numpy() for scores in (sweep.scores[0], sweep.scores[2]))
    assert sweep.stability()[0, 2, 2] == pytest.approx(spearmanr(a, b).statistic)


@pytest.mark.parametrize(
    ("inverse", "message"),
    [
        (tlx.CG(1e-2), "pseudo-inverses of several ranks need eigen-directions"),
        (tlx.Woodbury(1e-2), "need eigen-"),
    ],
)
def test_an_inverse_without_directions_has_no_ranks(problem, inverse, message):
    learner, train, test = problem
    with pytest.raises(CurvatureError, match=message):
        TaskInfluence(learner, inverse=inverse).fit(train).rank_sweep([2], test)


@pytest.mark.parametrize("ranks", [[], [0], [10_000], 3])
def test_ranks_that_make_no_sense_are_refused(problem, ranks):
    learner, train, test = problem
    with pytest.raises(CurvatureError):
        TaskInfluence(learner, inverse=Dense(1.0)).fit(train).rank_sweep(ranks, test)
