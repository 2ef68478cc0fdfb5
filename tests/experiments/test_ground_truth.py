"""Removals, corrupted tasks and detection by hand; conclusions from made-up numbers; one run against a plain loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics
import torch
import torch.nn.functional as F

import tlxml_fast as tlx
from tlxml_fast.experiments import Setup
from tlxml_fast.experiments.ground_truth import GroundTruth, detection, removal, subject
from tlxml_fast.experiments.ground_truth.analysis import agreement, both, chance, of, pairs
from tlxml_fast.experiments.ground_truth.analysis import detection as detected
from tlxml_fast.experiments.ground_truth.conclusions import GAUSS_NEWTON, HESSIAN
from tlxml_fast.experiments.ground_truth.gains import _auc, _counts, _spearman, gain, gain_of_detection
from tlxml_fast.experiments.ground_truth.scoring import scorings

TRAIN, TEST, SIZES = 6, 3, (1, 3)
NAMES = [way.name for way in scorings(2, 0)]
OWN = [way.name for way in scorings(2, 0) if way.own]


def numbers(seed: int) -> dict:
    """Gauss-Newton scores that predict every change of the warm truth exactly, and the others by chance."""
    rng = np.random.default_rng(seed)
    scores = {name: rng.standard_normal((TEST, TRAIN)).tolist() for name in NAMES}
    exact = np.array(scores[GAUSS_NEWTON])

    def truth(changes: np.ndarray) -> dict:
        many = len(changes)
        told = ("distances", "values", "gradient_norms", "evaluations")
        return {
            "changes": changes.tolist(),
            **{key: [1.0] * many for key in told},
            "converged": [True] * many,
        }

    removals = []
    for k in SIZES:
        groups = removal.draw(subject.Removals(k, 6, 0, 0), TRAIN, seed)
        warm = np.array([-exact[:, group].sum(1) / TRAIN for group in groups])
        truths = {"warm": warm, "scratch": rng.standard_normal((4, TEST)), "bregman": 2 * warm}
        removals.append({"k": k, "groups": groups, "truths": {n: truth(c) for n, c in truths.items()}})
    corrupted = [True] * 2 + [False] * (TRAIN - 2)
    suspicious = [5.0, 4, 1, 2, 3, 0]
    found = {
        "own": {name: [-s for s in suspicious] for name in OWN},
        "mean": {name: suspicious[::-1] if name == HESSIAN else suspicious for name in NAMES},
        "train_accuracy": 0.7,
        "test_accuracy": 0.5,
        "gradient_norm": 1e-7,
    }
    fit = (
        "train_accuracy",
        "test_accuracy",
        "train_loss",
        "test_loss",
        "smallest_eigenvalue",
        "largest_eigenvalue",
    )
    return {
        "retraining": {
            **{"train": TRAIN, "test": TEST, "parameters": 9, "weight_decay": 0.1, "damping": 0.01},
            **{"gradient_norm": 1e-7, "evaluations": 3, "seconds": 1.0, **dict.fromkeys(fit, 0.5)},
            "evaluation_seconds": {"engine": 1e-3, "torch.func": 4e-3},
            "scores": scores,
            "changes": NAMES[:3],
            "removals": removals,
        },
        "detection": {"corrupted": corrupted, "learners": {"MAML": found, "ProtoNet": found}},
    }


SEEDS = {seed: json.loads(json.dumps(numbers(seed))) for seed in (0, 1)}


@pytest.mark.parametrize("k", SIZES)
def test_agreement(k):
    exact = agreement(SEEDS, k, "warm", GAUSS_NEWTON)
    np.testing.assert_allclose(exact.spearman, 1)
    np.testing.assert_allclose(exact.pearson, 1)
    np.testing.assert_allclose(exact.slope, 1)
    np.testing.assert_allclose(agreement(SEEDS, k, "bregman", GAUSS_NEWTON).slope, 2)
    assert exact.spearman.shape == (2 * TEST,)
    assert abs(of(agreement(SEEDS, k, "scratch", GAUSS_NEWTON).spearman).mean) < 0.9


def test_chance():
    """No other order of the groups is as good as the right one; random scores are middling."""
    assert chance(SEEDS, 1, "warm", GAUSS_NEWTON) == 1 / 2001
    drawn = [chance(SEEDS, k, "warm", name, 400) for k in SIZES for name in NAMES if name != GAUSS_NEWTON]
    assert min(drawn) < 0.3
    assert max(drawn) > 0.7
    assert 0.3 < np.mean(drawn) < 0.7


def test_removing_a_helpful_task_raises_the_loss():
    predicted, _ = both(SEEDS, 1, "warm", HESSIAN)
    (group, *_) = SEEDS[0]["retraining"]["removals"][0]["groups"]
    score = SEEDS[0]["retraining"]["scores"][HESSIAN][0][group[0]]
    assert predicted[0] == pytest.approx(-score / TRAIN)


def test_detection_looks_at_the_right_end():
    assert detected(SEEDS, "MAML", GAUSS_NEWTON, "own").auc.tolist() == [1, 1]
    assert detected(SEEDS, "MAML", GAUSS_NEWTON, "mean").precision.tolist() == [1, 1]
    assert detected(SEEDS, "MAML", HESSIAN, "mean").auc.tolist() == [1 / 4, 1 / 4]
    assert detected(SEEDS, "MAML", "random", "own") is None


def test_rank_correlations_and_areas_of_resamples():
    """By scipy and scikit-learn, of the columns drawn, with ties; the first draw is what was observed."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(4, size=(2, 3, 9)).astype(float)
    counts = _counts(rng, 9)
    assert (counts[0] == 1).all()
    found = _spearman(a, b, counts)
    for d in range(0, 500, 50):
        drawn = np.repeat(np.arange(9), counts[d].astype(int))
        want = [scipy.stats.spearmanr(x[drawn], y[drawn]).statistic for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(found[d], want, atol=1e-12)
    corrupted = np.arange(9) < 3
    bad, good = _counts(rng, 3), _counts(rng, 6)
    areas = _auc(a[0], corrupted, bad, good)
    for d in (0, 7, 99):
        drawn = np.repeat(np.arange(9), np.concatenate([bad[d], good[d]]).astype(int))
        assert areas[d] == pytest.approx(sklearn.metrics.roc_auc_score(corrupted[drawn], a[0][drawn]))


def test_a_gain_is_over_the_groups_that_both_have():
    """Of the truth from the initialisation only four groups are known, of that from the minimum six."""
    found = gain(SEEDS, 1, ("scratch", HESSIAN), ("warm", HESSIAN))
    assert found.groups == 2 * 4
    want = [
        np.concatenate(
            [tlx.experiments.statistics.spearman(p[:, :4], c[:, :4]) for p, c in pairs(SEEDS, 1, t, HESSIAN)]
        ).mean()
        for t in ("scratch", "warm")
    ]
    assert (found.ours, found.theirs) == pytest.approx(want)
    assert found.difference.mean == pytest.approx(want[0] - want[1])
    assert found.difference.low < found.difference.mean < found.difference.high


def test_an_interval_of_gains_knows_of_groups():
    """All test tasks are alike, so that resampling them alone would give no interval at all."""
    seeds = json.loads(json.dumps({0: numbers(0)}))
    found = seeds["0"]["retraining"]
    for name in (HESSIAN, "random"):
        found["scores"][name] = [found["scores"][name][0]] * TEST
    for removal_ in found["removals"]:
        removal_["truths"]["warm"]["changes"] = [
            [row[0]] * TEST for row in removal_["truths"]["warm"]["changes"]
        ]
    assert agreement(seeds, 1, "warm", HESSIAN).spearman.std() < 1e-12
    found = gain(seeds, 1, ("warm", HESSIAN), ("warm", "random")).difference
    assert found.high - found.low > 0.1


def test_one_corrupted_task_decides_nothing():
    found = gain_of_detection(SEEDS, "MAML", (GAUSS_NEWTON, "mean"), (HESSIAN, "mean"))
    assert found.mean == pytest.approx(3 / 4)
    assert found.low < found.mean < found.high
    alone = json.loads(json.dumps({0: numbers(0)}))
    alone["0"]["detection"]["corrupted"] = [True] + [False] * (TRAIN - 1)
    assert np.isnan(gain_of_detection(alone, "MAML", (GAUSS_NEWTON, "mean"), (HESSIAN, "mean"))).all()


def test_conclusions_follow_the_numbers():
    outcome = GroundTruth().conclude(Setup(), SEEDS)

    def verdict(*words: str) -> str:
        (found,) = (f.verdict for f in outcome.findings if all(word in f.claim for word in words))
        return found

    assert (
        verdict("Gauss-Newton influence predicts", "from the minimum without a single", "chance") == "holds"
    )
    assert verdict("The exact Hessian", "single task") == "does not hold"
    assert verdict("MAML", "influence on itself") == "undecided"
    titles = [table.title for table in outcome.tables]
    assert sum("linear datamodelling score" in title for title in titles) == 1
    assert len(titles) == 4 + len(SIZES)


def test_groups_are_distinct_tasks_and_come_again():
    singles = removal.draw(subject.Removals(1, 5, 0, 0), 5, 3)
    assert sorted(singles) == [[0], [1], [2], [3], [4]]
    groups = removal.draw(subject.Removals(4, 9, 0, 0), 8, 3)
    assert all(len(set(group)) == 4 and max(group) < 8 for group in groups)
    assert groups == removal.draw(subject.Removals(4, 9, 0, 0), 8, 3)
    assert groups != removal.draw(subject.Removals(4, 9, 0, 0), 8, 4)


def some_tasks(count: int) -> tlx.TaskSet:
    return tlx.data.digits("train").sample(count, ways=3, shots=2, queries=4, seed=0)


def test_a_tenth_of_the_tasks_is_corrupted_in_the_query_labels_alone():
    clean = some_tasks(20)
    changed, corrupted = detection.corrupt(clean, 0)
    assert corrupted.sum() == 2
    for before, after, wrong in zip(clean, changed, corrupted, strict=True):
        assert torch.equal(before.support_y, after.support_y)
        assert torch.equal(before.query_x, after.query_x)
        assert torch.equal(before.query_y, after.query_y) != wrong


def test_a_consistent_permutation_changes_nothing_for_a_protonet():
    (task,) = some_tasks(1)
    order = torch.tensor([2, 0, 1])
    permuted = task.replace(support_y=order[task.support_y], query_y=order[task.query_y])
    learner = tlx.ProtoNet(tlx.models.mlp(64, 4, 3, seed=0).double())
    first, second = (tlx.linearize(learner, [t]) for t in (task, permuted))
    torch.testing.assert_close(first.losses(), second.losses())
    torch.testing.assert_close(first.gradients(), second.gradients())


def plain_losses(tasks: tlx.TaskSet, omega: torch.Tensor, hidden: int) -> torch.Tensor:
    """Losses after one inner step of rate 0.5, in torch alone."""
    omega = omega if omega.requires_grad else omega.requires_grad_()
    sizes = (hidden * 34, hidden, 5 * hidden, 5)
    W, b, U, c = omega.split(sizes)
    at = [W.view(hidden, 34), b, U.view(5, hidden), c]
    losses = []
    for task in tasks:
        x, query = task.support_x.double(), task.query_x.double()

        def net(p: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]

        inner = F.cross_entropy(net(at, x), task.support_y)
        slopes = torch.autograd.grad(inner, at, create_graph=True)
        moved = [p - 0.5 * g for p, g in zip(at, slopes, strict=True)]
        losses.append(F.cross_entropy(net(moved, query), task.query_y))
    return torch.stack(losses)


@pytest.mark.slow
def test_leave_one_out_by_a_plain_loop(monkeypatch, one_thread):
    """A tiny run of the real code; two of its changes again, by autograd and scipy from the same minimum."""
    size = subject.Size(8, 3, 3, 4, (subject.Removals(1, 4, 1, 2), subject.Removals(4, 2, 1, 1)))
    monkeypatch.setattr(subject, "QUICK", size)
    found = removal.removed_and_retrained(Setup("digits", quick=True, progress=False), 0)
    setup = Setup("digits", quick=True, progress=False)
    train, test = subject.tasks_of(setup, 0, size.train, size.test)
    learner = subject.maml(size, 0)

    def minimum(start: np.ndarray, kept: list[int]) -> np.ndarray:
        def function(omega: np.ndarray) -> tuple[float, np.ndarray]:
            leaf = torch.tensor(omega, requires_grad=True)
            loss = plain_losses(train[kept], leaf, size.hidden).sum() / len(train)
            value = loss + 0.5 * subject.WEIGHT_DECAY * leaf.square().sum()
            return value.item(), torch.autograd.grad(value, leaf)[0].numpy()

        options = {"maxiter": 5000, "maxfun": 5000, "gtol": 1e-7, "ftol": 0, "maxcor": 30}
        return scipy.optimize.minimize(function, start, jac=True, method="L-BFGS-B", options=options).x

    start = torch.cat([p.detach().reshape(-1) for p in learner.parameters().values()]).numpy()
    omega = minimum(start, list(range(len(train))))
    before = plain_losses(test, torch.tensor(omega), size.hidden).detach()
    assert found["test_loss"] == pytest.approx(float(before.mean()), abs=1e-4)
    np.testing.assert_allclose(found["omega"], omega, atol=1e-3)
    first = found["removals"][0]
    for group, change in zip(first["groups"][:2], first["truths"]["warm"]["changes"][:2], strict=True):
        kept = [i for i in range(len(train)) if i not in group]
        after = plain_losses(test, torch.tensor(minimum(omega, kept)), size.hidden)
        np.testing.assert_allclose(change, after.detach() - before, atol=2e-4)
