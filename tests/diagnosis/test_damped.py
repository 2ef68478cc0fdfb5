"""What the damping takes of a gradient, and that useless sizes are not called good."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import DELTA, LINES, TESTS, at_the_minimum, fitted, linear

import tlxml_fast as tlx


def diagnosed(damping: float) -> tlx.Diagnosis:
    return tlx.diagnose(fitted(at_the_minimum(linear()), inverse=tlx.Dense(damping)), TESTS)


def test_the_part_is_that_of_the_closed_form():
    lin = tlx.linearize(at_the_minimum(linear()), LINES)
    eye = torch.eye(lin.q, dtype=torch.float64)
    A = lin.gnvp(eye) + (DELTA + 0.3) * eye
    g = tlx.linearize(at_the_minimum(linear()), TESTS).gradients()
    parts = 0.3 * torch.linalg.solve(A, g.T).norm(dim=0) / g.norm(dim=1)
    assert diagnosed(0.3)["damped part"].values["part"] == pytest.approx(float(np.median(parts)), rel=1e-9)


def test_grades_fall_with_the_damping():
    grades = [diagnosed(damping)["damped part"].grade for damping in (0.0, 1e-4, 1.0, 1e4)]
    assert grades[0] == grades[1] == "good"
    assert grades[-1] == "bad"


def test_a_huge_damping_cannot_be_read_for_sizes():
    """Every other check of sizes gets better with λ, up to scores of zero."""
    diagnosis = diagnosed(1e6)
    assert diagnosis["linearity"].grade == "good"
    assert diagnosis.trust["the size of the change that removing tasks makes"] == "bad"
    assert diagnosis.grade == "bad"


def test_a_pseudo_inverse_has_no_damping():
    found = tlx.diagnose(fitted(at_the_minimum(linear()), inverse=tlx.Dense(rank=2)), TESTS)
    assert found["damped part"].grade == "good"
