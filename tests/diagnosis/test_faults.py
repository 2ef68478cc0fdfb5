"""Models with a known fault: no minimum, negative curvature, certainty; and samples of tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import DELTA, fitted

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnose
from tlxml_fast.diagnosis.gauss_newton import _measure
from tlxml_fast.diagnosis.subject import Subject


def test_an_untrained_network_is_not_stationary(untrained):
    assert untrained["stationarity"].grade == "bad"
    assert untrained.grade == "bad"
    assert untrained.trust["the sign of a score"] == "bad"


def test_an_untrained_network_bends_down(classes, untrained):
    """All eigenvalues, against numpy's."""
    learner, train, _ = classes
    lin = tlx.linearize(learner, train)
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64)).numpy() + DELTA * np.eye(lin.q)
    eigenvalues = np.linalg.eigvalsh((H + H.T) / 2)
    found = untrained["negative curvature"].values
    assert found["lowest"] == pytest.approx(eigenvalues[0])
    assert found["negative"] == int((eigenvalues < -1e-12).sum())
    below = np.abs(eigenvalues[eigenvalues < -1e-12]).sum()
    assert found["share_of_spectrum"] == pytest.approx(below / np.abs(eigenvalues).sum())


def test_gauss_newton_against_the_dense_matrices(classes, untrained):
    learner, train, test = classes
    lin = tlx.linearize(learner, train)
    eye = torch.eye(lin.q, dtype=torch.float64)
    G, H = lin.gnvp(eye), lin.hvp(eye)
    g = tlx.linearize(learner, test).gradients()
    x = torch.linalg.solve(G + (DELTA + 1e-3) * eye, g.T).T
    found = untrained["Gauss-Newton"].values
    errors = (g @ (H - G)).norm(dim=1) / (g @ H).norm(dim=1)
    assert found["gradients.error"] == pytest.approx(float(errors.quantile(0.5)))
    left = (x @ (H - G)).norm(dim=1) / g.norm(dim=1)
    assert found["systems.residual"] == pytest.approx(float(left.quantile(0.5)))


def test_lanczos_finds_the_ends_too(classes, untrained, monkeypatch):
    monkeypatch.setattr("tlxml_fast.diagnosis.subject.ALL_EIGENVALUES", 10)
    learner, train, test = classes
    found = diagnose(fitted(learner, train), test)["negative curvature"]
    exact = untrained["negative curvature"]
    assert found.values["lowest"] == pytest.approx(exact.values["lowest"], rel=1e-2)
    assert found.values["largest"] == pytest.approx(exact.values["largest"], rel=1e-2)
    assert found.values["negative"] is None
    assert found.grade == exact.grade
    few = diagnose(fitted(learner, train), test, hessian_tasks=5)["negative curvature"].values
    lin = tlx.linearize(learner, train)
    assert (
        exact.values["lowest"] <= few["lowest_over_all"] < float(lin.hvp(torch.eye(lin.q)).diagonal().mean())
    )


def test_a_damping_above_the_lowest_eigenvalue_makes_a_minimum(classes, untrained):
    learner, train, test = classes
    lowest = untrained["negative curvature"].values["lowest"]
    assert lowest < -1e-3
    assert untrained["negative curvature"].grade != "good"
    enough = fitted(learner, train, inverse=tlx.Dense(damping=-1.1 * lowest))
    assert diagnose(enough, test)["negative curvature"].grade == "good"


def test_an_overconfident_network_has_no_curvature(classes):
    _, train, test = classes
    sure = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=0).double(), inner_lr=0.0)
    with torch.no_grad():
        for p in sure.module.parameters():
            p *= 40
    with pytest.warns(tlx.InfluenceWarning, match="confidence"):
        found = diagnose(fitted(sure, train), test)
    confidences = tlx.linearize(sure, train).logits.softmax(-1).amax(-1)
    assert found["confidence"].values["share_above_0.99"] == pytest.approx(
        float((confidences > 0.99).double().mean())
    )
    assert found["confidence"].grade == "bad"
    assert found.trust["which groups of tasks help more than others, on average"] == "bad"


def test_a_sample_is_corrected_for_its_size_and_its_direction_tried_on_all(classes):
    learner, train, test = classes
    found = diagnose(fitted(learner, train), test, hessian_tasks=5)
    chosen = [0, 4, 8, 11, 15]
    lin = tlx.linearize(learner, train)
    eye = torch.eye(lin.q, dtype=torch.float64)
    each = [(one.gnvp(eye), one.hvp(eye)) for one in (tlx.linearize(learner, [task]) for task in train)]
    g = tlx.linearize(learner, test).gradients()
    dropped = {t: g @ (H - G) for t, (G, H) in enumerate(each)}
    a, b = (sum(dropped[t] for t in half) / len(half) for half in (chosen[::2], chosen[1::2]))
    squared = (0.6 * a + 0.4 * b).square().sum(1) - (1 - 5 / 16) * (a - b).square().sum(1) / 4
    H_sample = sum(each[t][1] for t in chosen) / 5
    errors = squared.clamp_min(0).sqrt() / (g @ H_sample).norm(dim=1)
    assert found["Gauss-Newton"].values["gradients.error"] == pytest.approx(float(errors.quantile(0.5)))

    eigenvalues, vectors = torch.linalg.eigh(H_sample)
    H = sum(H for _, H in each) / 16
    curvature = found["negative curvature"].values
    assert curvature["lowest"] == pytest.approx(float(eigenvalues[0]) + DELTA)
    assert curvature["lowest_over_all"] == pytest.approx(float(vectors[:, 0] @ H @ vectors[:, 0]) + DELTA)
    assert curvature["lowest_over_all"] >= float(torch.linalg.eigvalsh(H)[0]) + DELTA
    assert curvature["tasks"] == found["Gauss-Newton"].values["tasks"] == 5


def test_the_correction_is_right_on_average(classes):
    """Of many samples of four tasks, the mean estimate of ‖(H − G)g‖² is nearer to the truth than the plain mean."""
    learner, train, test = classes
    influence = fitted(learner, train)
    subject = Subject(influence, test, "loss", 4)
    g = tlx.linearize(learner, test).gradients()
    each = torch.stack(
        [tlx.linearize(learner, [t]).hvp(g) - tlx.linearize(learner, [t]).gnvp(g) for t in train]
    )
    truth = each.mean(0).square().sum(1).mean()
    corrected, plain = [], []
    for seed in range(40):
        chosen = np.random.default_rng(seed).permutation(16)[:4].tolist()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Subject, "sample", property(lambda _, chosen=chosen: chosen))
            corrected.append(_measure(subject, g).dropped.square().mean())
        plain.append(each[chosen].mean(0).square().sum(1).mean())
    assert abs(torch.stack(corrected).mean() - truth) < abs(torch.stack(plain).mean() - truth) / 3
