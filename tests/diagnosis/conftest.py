"""Diagnoses that several tests look at, made once."""

from __future__ import annotations

import pytest
from subjects import TESTS, at_the_minimum, fitted, linear

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnose


@pytest.fixture(scope="session")
def convex() -> tlx.Diagnosis:
    return diagnose(fitted(at_the_minimum(linear())), TESTS)


@pytest.fixture(scope="session")
def classes() -> tuple[tlx.Learner, tlx.TaskSet, tlx.TaskSet]:
    """An untrained network on digits."""
    pool = tlx.data.digits("all")
    shape = {"ways": 3, "shots": 2, "queries": 3}
    learner = tlx.MAML(tlx.models.mlp(64, 4, 3, seed=0).double(), inner_lr=0.3)
    return learner, pool.sample(16, **shape, seed=0), pool.sample(4, **shape, seed=1)


@pytest.fixture(scope="session")
def untrained(classes) -> tlx.Diagnosis:
    learner, train, test = classes
    return diagnose(fitted(learner, train), test)
