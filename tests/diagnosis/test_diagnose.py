"""Training records, other learners, what is refused, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from subjects import DELTA, fitted, spearman

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnose
from tlxml_fast.diagnosis.check import at_least


def test_tasks_against_what_training_recorded(classes):
    learner, train, test = classes
    learner = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=0).double(), inner_lr=0.3)
    tlx.meta_train(learner, train, steps=8, batch_size=4, weight_decay=DELTA, progress=False)
    found = diagnose(fitted(learner, train), test)["tasks"]
    assert found.values["expected_share_seen"] == pytest.approx(1 - 0.75**8)
    assert found.grade == "doubtful"
    assert diagnose(fitted(learner, train[:4]), test)["tasks"].values["fitted"] == 4


@pytest.mark.parametrize(("steps", "tasks", "grade"), [(40, 16, "good"), (40, 8, "doubtful"), (1, 16, "bad")])
def test_the_grade_of_the_tasks(classes, steps, tasks, grade):
    _, train, test = classes
    learner = tlx.MAML(tlx.models.mlp(64, 2, 3, seed=0).double(), inner_lr=0.3)
    tlx.meta_train(learner, train, steps=steps, batch_size=4, weight_decay=DELTA, progress=False)
    assert diagnose(fitted(learner, train[:tasks]), test)["tasks"].grade == grade


def test_the_same_learner_agrees_with_itself_and_another_is_compared(classes):
    _, train, test = classes
    learner = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=0).double(), inner_lr=0.3)
    learner.weight_decay = DELTA
    other = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=9).double(), inner_lr=0.3)
    other.weight_decay = DELTA
    influence = fitted(learner, train)
    found = diagnose(influence, test, retrained=[learner, other])["training seeds"]
    assert found.values["run 1.spearman"] == pytest.approx(1)
    theirs = fitted(other, train).scores(test).values
    expected = np.median(spearman(influence.scores(test).values, theirs))
    assert found.values["run 2.spearman"] == pytest.approx(expected)
    assert found.grade == at_least(expected, 0.9, 0.5)


@pytest.mark.parametrize("inverse", [tlx.Dense(damping=0.1), tlx.CG(damping=0.1)], ids=["dense", "cg"])
def test_with_a_store(classes, tmp_path, inverse):
    learner, train, test = classes
    found, plain = (
        diagnose(fitted(learner, train, inverse=inverse, store=store), test) for store in (tmp_path, None)
    )
    assert {check.name: check.grade for check in found.checks} == {
        check.name: check.grade for check in plain.checks
    }


def test_what_cannot_be_diagnosed(classes):
    learner, train, test = classes
    with pytest.raises(tlx.TlxError, match="no assumption to diagnose"):
        diagnose(tlx.TaskInfluence(learner, tlx.Identity()).fit(train), test)
    with pytest.raises(tlx.TlxError, match="call fit"):
        diagnose(tlx.TaskInfluence(learner), test)
    with pytest.raises(tlx.TlxError, match="hessian_tasks"):
        diagnose(fitted(learner, train), test, hessian_tasks=0)
    with pytest.raises(tlx.TlxError, match="the checks are tasks"):
        diagnose(fitted(learner, train), test)["luck"]


def test_a_model_without_third_derivatives_says_so(classes, monkeypatch):
    learner, train, test = classes
    influence = fitted(learner, train)

    def refuse(*_):
        raise RuntimeError("derivative for made_up is not implemented")

    monkeypatch.setattr("tlxml_fast.curvature.Hessian.total", refuse)
    found = diagnose(influence, test)
    assert found["Gauss-Newton"].grade == "unknown"
    assert "derivative for made_up" in found["Gauss-Newton"].verdict


@pytest.mark.parametrize("tasks", [1, 2])
def test_very_few_tasks(classes, tasks):
    learner, train, test = classes
    found = diagnose(fitted(learner, train[:tasks]), test[:1])
    assert json.dumps(found.describe(), allow_nan=False)


def test_it_is_json_whatever_was_found(convex, untrained):
    for found in (convex, untrained):
        text = json.dumps(found.describe(), allow_nan=False)
        assert json.loads(text)["grade"] == found.grade


def test_the_diagnosis_leaves_the_influence_as_it_was(classes):
    learner, train, test = classes
    influence = fitted(learner, train)
    before = influence.scores(test).values
    diagnose(influence, test[:2])
    assert torch.equal(influence.scores(test).values, before)


def test_the_overall_grade_is_the_worst(convex):
    worse = replace(convex, checks=(*convex.checks[:-1], replace(convex.checks[-1], grade="bad")))
    assert worse.grade == "bad"
