"""quanda's calls give I_perf in its orientation and sign, and its metrics apply to groups of tasks."""

from __future__ import annotations

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast.interop import quanda_explainer

pytest.importorskip("quanda", reason="quanda is not installed")

POOL = tlx.data.digits("all")
TRAIN = tlx.TaskSet(
    task.replace(group="even" if i % 2 == 0 else "odd")
    for i, task in enumerate(POOL.sample(6, ways=3, shots=1, queries=2, seed=0))
)
TEST = tlx.TaskSet(task.replace(group="odd") for task in POOL.sample(3, ways=3, shots=1, queries=2, seed=1))


@pytest.fixture(scope="module")
def influence():
    learner = tlx.MAML(tlx.models.mlp(64, 3, 3, seed=0).double(), 0.5)
    return tlx.TaskInfluence(learner, inverse=tlx.Dense(0.1)).fit(TRAIN)


def test_explanations(influence):
    from quanda.explainers import Explainer

    explainer = quanda_explainer(influence, TRAIN, TEST)
    assert isinstance(explainer, Explainer)
    torch.testing.assert_close(explainer.explain(explainer.test_data), -influence.scores(TEST).values)
    own = -influence.scores(TRAIN).values.diagonal()
    torch.testing.assert_close(explainer.self_influence(batch_size=4).double(), own, rtol=1e-6, atol=0)
    with pytest.raises(tlx.TaskError, match="there is no task at place 9 of 9"):
        explainer.explain([8, 9])


def test_its_metric_of_groups(influence):
    from quanda.metrics.downstream_eval import ClassDetectionMetric

    explainer = quanda_explainer(influence, TRAIN, TEST)
    metric = ClassDetectionMetric(influence.learner.module, explainer.train_dataset, s=2)
    metric.update(explainer.explain(explainer.test_data), explainer.test_targets)
    best = influence.scores(TEST).helpful(2).indices
    assert metric.compute()["score"] == pytest.approx(float((best % 2 == 1).double().mean()))
