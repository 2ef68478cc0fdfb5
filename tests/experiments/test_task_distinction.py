"""Self-ranks by hand, and conclusions from made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from tlxml_fast.experiments import Setup
from tlxml_fast.experiments.task_distinction import TaskDistinction
from tlxml_fast.experiments.task_distinction.cases import ALPHAS, Case, cases_of
from tlxml_fast.experiments.task_distinction.experiment import _ranks, _self_ranks
from tlxml_fast.scores import Scores, TaskAxis


def axis(count: int) -> TaskAxis:
    return TaskAxis(*(tuple(f"{i}" for i in range(count)) for _ in range(3)))


def test_a_self_rank_counts_who_is_more_helpful():
    values = torch.tensor([[-1.0, -2, 0, 3], [5, -4, -4, -5], [0, 0, 0, 0]], dtype=torch.float64)
    scores = Scores(values, axis(3), axis(4), torch.ones(4, dtype=torch.bool))
    assert _self_ranks(scores).tolist() == [2, 2, 1]


def test_the_grid_of_ranks_ends_at_the_numerical_rank():
    assert _ranks([1e-12, 0.3, -2, 1, 1, 1, 1, 1, 1]) == [4, 8]
    assert _ranks([1.0] * 9) == [4, 8, 9]


def numbers(seed: int, worse: bool) -> dict:
    """Two tasks whose self-rank and self-score get worse along α, or do not; one direction that is negative."""
    rng = np.random.default_rng(seed)

    def own(alpha: float) -> dict:
        rank, score = (1 + int(10 * alpha), -1 + alpha) if worse else (1, -1.0)
        return {"self_ranks": [[3, 1], [1, 1], [rank] * 2], "self_scores": [[-0.1, -0.2]] * 2 + [[score] * 2]}

    each = {"eigenvalues": [-0.5, 0.1, 1, 2], "ranks": [4, 4 + seed], **own(0)}
    each["darkened"] = {str(alpha): own(alpha) for alpha in ALPHAS}
    subject = {
        "tasks": 2,
        "images": False,
        "fit": {"train_accuracy": 0.8, "test_accuracy": 0.6, "train_loss": 1.0, "test_loss": 1.5},
        "losses": rng.random(2).tolist(),
        "confidences": [0.5, 0.6],
        "curvatures": {"Hessian": each, "Gauss-Newton": each},
    }
    return {"MAML, MLP": subject, "ProtoNet, Conv4": {**subject, "images": True}}


@pytest.mark.parametrize("worse", [True, False])
def test_conclusions_follow_the_numbers(worse):
    outcome = TaskDistinction().conclude(Setup(), {s: numbers(s, worse) for s in (1, 2)})
    verdicts = [finding.verdict for finding in outcome.findings]
    darker = ["holds", "holds", "does not hold"] if worse else ["does not hold", "does not hold", "holds"]
    assert verdicts[:5] + verdicts[6:] == ["holds", "holds", *darker, "holds"]
    first = outcome.tables[0]
    assert first.columns[1:4] == ["4", "all", "damped"]
    assert first.rows[0][1:4] == ["50%", "100%", "100%"]
    assert outcome.tables[2].rows[0][1:3] == [4, 1]


def test_the_trend_is_scipys_over_the_mean():
    case = cases_of({1: numbers(1, True)})[0]
    series = case.darkened("self_ranks")
    expected = kendalltau(ALPHAS, series.mean(0))
    assert case.trend("self_ranks") == pytest.approx((expected.statistic, expected.pvalue, 1.0))
    assert np.isnan(cases_of({1: numbers(1, False)})[0].trend("self_ranks")[0])


def test_points_are_those_all_seeds_have():
    case = cases_of({1: numbers(1, True), 3: numbers(3, True)})[0]
    assert case.points == [4, Case.ALL, None]
    assert case.own("self_ranks", Case.ALL).tolist() == [1, 1, 1, 1]
