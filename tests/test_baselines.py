"""Baselines: their formulas by plain torch, and that they are Scores like any other."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import nn

import tlxml_fast as tlx
from tlxml_fast import baselines
from tlxml_fast.baselines.similarity import without_head
from tlxml_fast.learners import Episode

EVERY = [getattr(baselines, name) for name in baselines.__all__]


@pytest.fixture(scope="module")
def tasks(all_glyphs) -> tuple[tlx.TaskSet, tlx.TaskSet]:
    pool = all_glyphs.sample
    few = {"ways": 3, "shots": 1, "queries": 2}
    # of two shapes
    train = pool(3, **few, seed=0) + pool(2, ways=3, shots=2, queries=1, seed=1)
    return tlx.TaskSet(train), tlx.TaskSet(pool(2, **few, seed=2))


@pytest.fixture(params=["maml", "protonet"])
def learner(request) -> tlx.Learner:
    if request.param == "maml":
        return tlx.MAML(tlx.models.mlp(784, (6, 5), 3, seed=0).double(), inner_lr=0.1, inner_steps_eval=2)
    return tlx.ProtoNet(tlx.models.conv4(2, seed=0).double(), scale=0.1)


def loss(learner, omega, task):
    y = task.query_y
    logits = learner.query_logits(omega, Episode.of(task, torch.float64, torch.device("cpu")), task.ways)
    return nn.functional.cross_entropy(logits, y)


@pytest.mark.parametrize("score", EVERY, ids=baselines.__all__)
def test_every_baseline_is_scores(score, learner, tasks, tmp_path):
    train, test = tasks
    scores = score(learner, train, test)
    assert scores.values.shape == (2, 5)
    assert scores.values.dtype == torch.float64
    assert (scores.train.names, scores.test.ids) == (tuple(train.names), tuple(test.ids))
    scores.save(tmp_path / "scores.safetensors")
    assert tlx.Scores.load(tmp_path / "scores.safetensors").info == scores.info
    tlx.write_report(tmp_path / "report.html", scores, train, test)


@pytest.mark.parametrize("score", EVERY, ids=baselines.__all__)
def test_the_order_of_tasks_does_not_matter(score, learner, tasks):
    train, test = tasks
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(
        score(learner, train[order], test[::-1]).values, score(learner, train, test).values.flip(0)[:, order]
    )


def test_gradient_cosine_is_that_of_autograd(learner, tasks):
    omega = learner.parameters()
    gradients = [
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss(of, omega, t), list(omega.values()))])
            for t in side
        ]
        for of, side in zip((learner, learner.at_evaluation()), tasks, strict=True)
    ]
    expected = [[-torch.cosine_similarity(i, j, 0) for j in gradients[0]] for i in gradients[1]]
    torch.testing.assert_close(
        baselines.gradient_cosine(learner, *tasks).values, torch.tensor(expected, dtype=torch.float64)
    )


def test_loss_magnitude_is_the_training_loss(learner, tasks):
    losses = torch.stack([loss(learner, learner.parameters(), task).detach() for task in tasks[0]])
    torch.testing.assert_close(baselines.loss_magnitude(learner, *tasks).values, losses.expand(2, 5))


def test_ascent_is_a_few_steps_by_autograd(learner, tasks):
    lr, steps = 0.05, 3
    for j, task in enumerate(tasks[0]):
        omega = {name: p.detach().clone() for name, p in learner.parameters().items()}
        for _ in range(steps):
            omega = {name: p.requires_grad_() for name, p in omega.items()}
            slope = torch.autograd.grad(loss(learner, omega, task), list(omega.values()))
            omega = {n: (p + lr * g).detach() for (n, p), g in zip(omega.items(), slope, strict=True)}
        scores = baselines.ascent(learner, tasks[0][[j]], tasks[1], lr, steps).values[:, 0]
        of = learner.at_evaluation()
        for i, test in enumerate(tasks[1]):
            change = (loss(of, omega, test) - loss(of, learner.parameters(), test)).detach()
            assert scores[i] == pytest.approx(-float(change) / (lr * steps), abs=1e-9)


def test_small_ascent_is_the_product_of_gradients(learner, tasks):
    identity = tlx.TaskInfluence(learner, tlx.Identity()).fit(tasks[0]).scores(tasks[1]).values
    small = baselines.ascent(learner, *tasks, lr=1e-6, steps=1).values
    torch.testing.assert_close(small, identity, rtol=1e-3, atol=1e-3 * float(identity.abs().max()))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_task_is_most_similar_to_itself(learner, tasks, metric):
    values = baselines.embedding_similarity(learner, tasks[0], tasks[0], metric).values
    assert values.argmin(1).tolist() == list(range(5))
    torch.testing.assert_close(values, values.mT)
    own = -torch.ones(5) if metric == "cosine" else torch.zeros(5)
    torch.testing.assert_close(values.diagonal(), own.double())


def test_the_embedding_of_maml_is_the_layer_before_the_last(tasks):
    net = tlx.models.mlp(784, (6, 5), 3, seed=0).double()
    z = [
        nn.functional.relu(net.linear2(nn.functional.relu(net.linear1(x.flatten(1))))).mean(0).detach()
        for t in tasks[1]
        for x in [torch.cat([t.support_x, t.query_x]).double()]
    ]
    expected = (z[0] - z[1]).norm()
    values = baselines.embedding_similarity(tlx.MAML(net, 0.1), tasks[1], tasks[1], "euclidean").values
    assert values[0, 1] == pytest.approx(float(expected))


def test_the_embedding_of_a_protonet_is_its_encoders(tasks):
    net = tlx.models.conv4(2, seed=0).double()
    twin = tlx.models.conv4(2, seed=0).double().train()  # batch statistics
    z = [twin(torch.cat([t.support_x, t.query_x]).double()).mean(0).detach() for t in tasks[1]]
    values = baselines.embedding_similarity(tlx.ProtoNet(net), tasks[1], tasks[1]).values
    assert values[0, 1] == pytest.approx(-float(torch.cosine_similarity(*z, dim=0)))


def test_the_head_is_the_last_layer_with_parameters():
    nested = nn.Sequential(
        nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2), nn.ReLU()), nn.Flatten()
    )
    x = torch.randn(5, 4)
    torch.testing.assert_close(without_head(nested)(x), nested[1][0](nested[0](x)))
    assert list(dict(without_head(nested).named_parameters())) == ["0.weight", "0.bias"]
    torch.testing.assert_close(without_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))(x), x)


def test_random_scores_are_those_of_a_pair_and_a_seed(learner, tasks, all_glyphs):
    train, test = tasks
    one = baselines.random(learner, train[[2]], test[[1]]).values
    assert one[0, 0] == baselines.random(learner, train, test).values[1, 2]
    assert one[0, 0] != baselines.random(learner, train[[2]], test[[1]], seed=1).values[0, 0]
    many = all_glyphs.sample(40, ways=2, shots=1, queries=1, seed=3)
    assert kstest(baselines.random(learner, many, many).values.flatten(), "norm").pvalue > 0.001


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 3)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_what_cannot_be_done_is_said(learner, tasks):
    with pytest.raises(tlx.LearnerError, match="this is a Own"):
        baselines.embedding_similarity(tlx.MAML(Own()), *tasks)
    with pytest.raises(tlx.LearnerError, match="metric"):
        baselines.embedding_similarity(learner, *tasks, metric="dot")
    with pytest.raises(tlx.LearnerError, match="lr"):
        baselines.ascent(learner, *tasks, lr=0)
    with pytest.raises(tlx.LearnerError, match="steps"):
        baselines.ascent(learner, *tasks, steps=0)
    with pytest.raises(tlx.TaskError, match="no test tasks"):
        baselines.random(learner, tasks[0], [])
    with pytest.raises(tlx.TaskError, match="not finite"):
        baselines.ascent(learner, *tasks, lr=1e300)
