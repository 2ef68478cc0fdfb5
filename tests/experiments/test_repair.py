"""Halves of tasks, interventions and judgements by hand; conclusions from made-up numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast.experiments import Setup
from tlxml_fast.experiments.repair import Repair
from tlxml_fast.experiments.repair.measure import (
    CHOSEN_BY,
    INTERVENTIONS,
    RATE,
    STEPS,
    _Judge,
    _Trained,
    ends,
    split,
)
from tlxml_fast.retraining import Objective, minimise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def setting():
    pool = tlx.data.digits("train")
    train, test = (tlx.TaskSet(pool.sample(n, ways=3, shots=1, queries=4, seed=n).map(small)) for n in (5, 4))
    learner = tlx.MAML(tlx.models.mlp(16, 3, 3, seed=0, activation="tanh").double(), 0.5)
    objective = Objective(learner, train, 0.05)
    return learner, objective, test, minimise(objective, objective.start).omega


def small(task: tlx.Task) -> tlx.Task:
    return task.replace(support_x=task.support_x[..., ::2, ::2], query_x=task.query_x[..., ::2, ::2])


def test_halves_share_the_support_set_and_no_query(setting):
    task = setting[2][0]
    seen, fresh = split(task)
    assert torch.equal(seen.support_x, fresh.support_x)
    assert torch.bincount(seen.query_y).tolist() == torch.bincount(fresh.query_y).tolist() == [2, 2, 2]
    back = torch.stack([seen.query_x, fresh.query_x], 1).flatten(0, 1)
    assert torch.equal(back, task.query_x)


def test_harmful_is_what_raises_the_loss():
    assert ends(np.array([0.3, -2, 5, 0, -1]), 2) == ([1, 4], [2, 0])


def test_removed_and_halved_weights_are_minima_of_their_objectives(setting):
    learner, objective, _, omega = setting
    trained = _Trained(learner, objective, omega, 2)
    for name, factor in (("harmful removed", 0.0), ("harmful at half weight", 0.5)):
        moved = INTERVENTIONS[name](trained, [0, 1], [3, 4])
        weights = torch.tensor([0.2, 0.2, 0.2, 0.2 * factor, 0.2 * factor], dtype=torch.float64)
        assert float(objective.reweighted(weights).value_and_gradient(moved)[1].norm()) <= 1e-6
        assert not torch.equal(moved, omega)


def test_fine_tuning_is_gradient_descent_without_decay(setting):
    learner, objective, _, omega = setting
    trained = _Trained(learner, objective, omega, 2)
    lin = tlx.linearize(learner, objective.buckets.tasks)
    for name, away in (("tuned on helpful", 0.0), ("tuned on helpful, off harmful", 0.5)):
        weights = torch.tensor([0.5, 0.5, 0, -away, -away], dtype=torch.float64)
        want = omega
        for _ in range(STEPS):
            want = want - RATE * weights @ lin.at(want).gradients()
        torch.testing.assert_close(INTERVENTIONS[name](trained, [0, 1], [3, 4]), want)


def test_the_judge_counts(setting):
    learner, _, test, omega = setting
    judge = _Judge(learner, test, omega)
    moved = omega + 0.5 * torch.cos(torch.arange(len(omega), dtype=torch.float64))
    found = judge(1, moved)
    whole, one = Objective(learner, test), Objective(learner, [test[1]])
    halves = found["seen_loss"] + found["fresh_loss"]
    assert halves / 2 == pytest.approx(float(one.losses(moved) - one.losses(omega)), rel=1e-9)
    others = [0, 2, 3]
    change = whole.losses(moved) - whole.losses(omega)
    assert found["others_loss"] == pytest.approx(float(change[others].mean()), rel=1e-9)
    net = sum(found[f"{half}_corrected"] - found[f"{half}_broken"] for half in ("seen", "fresh"))
    assert net == round(12 * float(one.accuracies(moved) - one.accuracies(omega)))
    untouched = judge(1, omega)
    assert all(value == 0 for key, value in untouched.items() if not key.endswith("_errors"))


def numbers(seed: int, gain: float, costs: tuple[float, ...] = (0.01,) * 4) -> dict:
    """Influence lowers the fresh loss by `gain` more than anything else; others pay by intervention, ± 0.001."""
    rng = np.random.default_rng(seed)
    outcomes = [
        {
            "target": target,
            "chosen by": chooser,
            "intervention": intervention,
            "moved": 0.1,
            "seen_loss": -0.1,
            "fresh_loss": float(rng.normal(-gain if chooser == "Gauss-Newton" else 0, 0.1)),
            "others_loss": cost + 0.001 * (-1) ** target,
            "others_accuracy": 0.0,
            **{
                f"{half}_{what}": 2
                for half in ("seen", "fresh")
                for what in ("corrected", "broken", "errors")
            },
        }
        for target in range(12)
        for chooser in CHOSEN_BY
        for intervention, cost in zip(INTERVENTIONS, costs, strict=True)
    ]
    test = {f"{h}_{what}": [0.5] * 12 for h in ("seen", "fresh") for what in ("losses", "accuracies")}
    one = {"train": 9, "k": 2, "targets": list(range(12)), "outcomes": outcomes, "test": test}
    return {"MAML": one, "ProtoNet": one}


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "holds"), (0.0, "undecided"), (-1.0, "does not hold")])
def test_conclusions_follow_the_numbers(gain, verdict):
    seeds = {seed: json.loads(json.dumps(numbers(seed, gain))) for seed in (0, 1)}
    outcome = Repair().conclude(Setup(), seeds)
    assert [finding.verdict for finding in outcome.findings[:4]] == [verdict] * 4
    assert [finding.verdict for finding in outcome.findings[4:]] == ["does not hold"] * 2  # others pay
    assert "below 0.0050" in outcome.findings[4].because
    comparisons = outcome.tables[-1]
    assert len(comparisons.rows) == 32
    assert all(row[-1] == min(1, 32 * row[-2]) for row in comparisons.rows)


@pytest.mark.parametrize(
    ("costs", "verdict"),
    [
        ((0, 0, 0, 0), "holds"),
        ((0, 0, 0, 0.0045), "does not hold"),  # one is enough, however small
        ((-0.1, 0, 0, 0), "holds"),
    ],
)
def test_one_dear_intervention_refutes_that_they_are_free(costs, verdict):
    outcome = Repair().conclude(Setup(), {0: numbers(0, 1.0, costs)})
    assert [finding.verdict for finding in outcome.findings[4:]] == [verdict] * 2


def test_a_cost_that_may_be_large_decides_nothing():
    """The interval has zero and the bound in it."""
    seeds = {0: numbers(0, 1.0, (0, 0, 0, 0))}
    for outcome in seeds[0]["MAML"]["outcomes"]:
        outcome["others_loss"] *= 100
    assert Repair().conclude(Setup(), seeds).findings[4].verdict == "undecided"
