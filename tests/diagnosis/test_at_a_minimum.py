"""A convex problem at its minimum, where every check must be good, and at known distances from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import DELTA, LINES, TESTS, at_the_minimum, fitted, linear

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnose
from tlxml_fast.diagnosis.check import GRADES


@pytest.mark.parametrize(
    "name", ["stationarity", "confidence", "residuals", "Gauss-Newton", "negative curvature", "damping"]
)
def test_a_quadratic_at_its_minimum_is_good(convex, name):
    assert convex[name].grade == "good"


def test_gauss_newton_drops_nothing_of_a_quadratic(convex):
    found = convex["Gauss-Newton"].values
    assert max(found["random.error"], found["gradients.error"], found["systems.worst_residual"]) < 1e-12
    assert found["random.cosine"] == pytest.approx(1)


def test_the_spectrum_of_a_quadratic(convex):
    found = convex["negative curvature"].values
    lin = tlx.linearize(linear(), LINES)
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64)).numpy() + DELTA * np.eye(lin.q)
    assert found["lowest"] == pytest.approx(np.linalg.eigvalsh(H)[0])
    assert found["largest"] == pytest.approx(np.linalg.eigvalsh(H)[-1])
    assert found["negative"] == 0


def test_at_a_minimum_nothing_is_left_to_gain(convex):
    found = convex["stationarity"].values
    assert found["gradient_norm"] < 1e-12
    assert abs(found["predicted_decrease"]) < 1e-20
    assert found["signs_changed"] == 0


def test_the_linearity_error_is_the_second_order_term():
    """For a quadratic L_i the change along d is g·d + ½dᵀH_id, so that the error is known."""
    influence = fitted(at_the_minimum(linear()), inverse=tlx.Dense())
    scores, M, expected = influence.scores(TESTS), len(LINES), []
    for i, task in enumerate(TESTS):
        lin = tlx.linearize(influence.learner, [task])
        for j in sorted({int(scores.values[i].argmin()), int(scores.values[i].argmax())}):
            d = -influence.meta(j) / M
            curved = 0.5 * float(d @ lin.hvp(d[None])[0])
            expected.append(abs(curved / float(lin.gradients()[0] @ d)))
    found = diagnose(influence, TESTS, hessian_tasks=1)["linearity"].values
    assert found["error"] == pytest.approx(np.median(expected), rel=1e-6)
    assert found["worst_error"] == pytest.approx(max(expected), rel=1e-6)


def test_stationarity_measures_the_newton_step():
    """Off the minimum by s, the Newton decrease of a quadratic is ½sᵀHs, whatever way it is computed."""
    learner = at_the_minimum(linear())
    lin = tlx.linearize(learner, LINES)
    s = torch.linspace(-1, 1, lin.q, dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(lin.omega + s, learner.module.parameters())
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64)) + DELTA * torch.eye(lin.q, dtype=torch.float64)
    found = diagnose(fitted(learner, inverse=tlx.Dense()), TESTS, hessian_tasks=1)["stationarity"]
    assert found.values["predicted_decrease"] == pytest.approx(float(0.5 * s @ H @ s))
    assert found.values["gradient_norm"] == pytest.approx(float((H @ s).norm()))
    losses = tlx.linearize(learner, LINES).losses().numpy()
    assert found.values["spread_of_losses"] == pytest.approx(losses.std(ddof=1))
    assert found.values["standard_error_of_loss"] == pytest.approx(losses.std(ddof=1) / len(LINES) ** 0.5)


def test_signs_that_hang_on_the_newton_step_are_counted():
    learner = at_the_minimum(linear())
    lin = tlx.linearize(learner, LINES)
    torch.nn.utils.vector_to_parameters(lin.omega + 1, learner.module.parameters())
    influence = fitted(learner, inverse=tlx.Dense())
    lin = tlx.linearize(learner, LINES)
    H = lin.hvp(torch.eye(lin.q, dtype=torch.float64)) + DELTA * torch.eye(lin.q, dtype=torch.float64)
    g = torch.cat([tlx.linearize(learner, [task]).gradients() for task in TESTS])
    common = -g @ torch.linalg.solve(H, lin.gradients().mean(0) + DELTA * lin.omega)
    values = influence.scores(TESTS).values
    changed = ((values - common[:, None]).sign() != values.sign()).double().mean()
    assert 0 < changed < 1
    assert diagnose(influence, TESTS, hessian_tasks=1)["stationarity"].values[
        "signs_changed"
    ] == pytest.approx(float(changed))


def test_grades_follow_the_distance_from_the_minimum():
    grades = []
    for distance in (0.0, 1e-3, 0.3, 30.0):
        learner = at_the_minimum(linear())
        with torch.no_grad():
            for p in learner.module.parameters():
                p += distance
        grades.append(GRADES.index(diagnose(fitted(learner), TESTS, hessian_tasks=1)["stationarity"].grade))
    assert grades == sorted(grades)
    assert grades[0] == 0
    assert grades[-1] == 2
