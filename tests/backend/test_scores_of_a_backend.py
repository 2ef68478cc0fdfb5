"""What any backend gives becomes scores with names, a sign, a report and a file."""

from __future__ import annotations

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast import backend as backends

POOL = tlx.data.digits("all")
TRAIN = tlx.TaskSet(POOL.sample(5, ways=3, shots=1, queries=2, seed=0))
TEST = tlx.TaskSet(POOL.sample(2, ways=3, shots=1, queries=2, seed=1))


def learner():
    return tlx.MAML(tlx.models.mlp(64, 3, 3, seed=0).double(), 0.5)


@pytest.mark.parametrize("name", ["compiled", "reference"])
def test_they_are_those_of_the_influence(name):
    scored = backends.get(name).influence(learner(), TRAIN, damping=0.1).scores(TEST)
    found = tlx.Scores.from_backend(scored, TEST, TRAIN)
    expected = tlx.TaskInfluence(learner(), inverse=tlx.Dense(0.1, negative="keep")).fit(TRAIN).scores(TEST)
    assert (found.test, found.train, found.target) == (expected.test, expected.train, expected.target)
    torch.testing.assert_close(found.values, expected.values)
    assert torch.equal(found.in_fit, expected.in_fit)
    assert torch.equal(found.helpful(3).indices, expected.helpful(3).indices)
    assert torch.equal(found.harmful(3).indices, expected.harmful(3).indices)
    assert found.info["certificate"].keys() == expected.info["certificate"].keys()
    assert max(found.info["certificate"]["residuals"]) < 1e-10


def given(converged=True):
    values = torch.arange(10.0, requires_grad=True).view(2, 5)
    return backends.Scored(values, backends.Certificate((1e-9, 2e-9), 0.1, converged))


def test_another_backends_are_saved_and_reported(tmp_path):
    found = tlx.Scores.from_backend(given(), TEST, TRAIN)
    assert (found.values.dtype, found.values.requires_grad) == (torch.float64, False)
    certificate = {"residuals": [1e-9, 2e-9], "worst_residual": 2e-9, "damping": 0.1, "converged": True}
    assert found.info == {"certificate": certificate}
    found.save(tmp_path / "scores.safetensors")
    again = tlx.Scores.load(tmp_path / "scores.safetensors")
    assert (again.test, again.train, again.info) == (found.test, found.train, found.info)
    assert torch.equal(again.values, found.values)
    tlx.write_report(tmp_path / "report.html", found, TRAIN, TEST)
    assert TEST[0].label in (tmp_path / "report.html").read_text()


def test_what_did_not_converge_says_so():
    assert "not converged" in repr(tlx.Scores.from_backend(given(converged=False), TEST, TRAIN))


def test_as_many_scores_as_pairs():
    with pytest.raises(tlx.TlxError, match=r"scores of shape \(2, 5\) for 2 test × 4 train"):
        tlx.Scores.from_backend(given(), TEST, TRAIN[:4])
