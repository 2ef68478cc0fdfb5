"""The assumptions behind an influence that `fit` checks."""

import warnings

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast import models


def digits() -> tlx.TaskSet:
    return tlx.TaskSet(tlx.data.digits().sample(8, ways=3, shots=2, queries=2, seed=0))


def test_parameters_far_from_a_stationary_point():
    influence = tlx.TaskInfluence(tlx.MAML(models.mlp(64, 5, 3, seed=0), 0.1))
    with pytest.warns(tlx.InfluenceWarning, match="far from a stationary point"):
        influence.fit(digits())


def test_confidence_that_leaves_no_curvature():
    learner = tlx.ProtoNet(models.mlp(64, 5, 4, seed=0), scale=1e4)
    with pytest.warns(tlx.InfluenceWarning, match="median query confidence"):
        tlx.TaskInfluence(learner, inverse=tlx.Dense(damping=tlx.Relative(1e-3))).fit(digits())


def test_a_trained_learner_is_fitted_in_silence():
    learner = tlx.MAML(models.mlp(64, 5, 3, seed=0), 0.1)
    settings = {"batch_size": 8, "lr": 1e-2, "schedule": "cosine", "weight_decay": 3e-2, "progress": False}
    tlx.meta_train(learner, digits(), steps=300, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tlx.InfluenceWarning)
        report = tlx.TaskInfluence(learner).fit(digits()).report
    assert report["gradient_norm"] < 0.1 * report["median_task_gradient_norm"]
    assert torch.isfinite(torch.tensor(report["median_confidence"]))
