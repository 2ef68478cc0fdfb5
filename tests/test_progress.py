"""Progress: how fast new work is, whatever was there before; and what a product is for."""

from __future__ import annotations

import json

import pytest
import torch

import tlxml_fast as tlx
import tlxml_fast.models
from tlxml_fast import progress
from tlxml_fast.progress import logged, progress_bar

pytestmark = pytest.mark.filterwarnings("ignore::tlxml_fast.InfluenceWarning")


def records(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_there_says_nothing_of_the_rate(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with logged(records=tmp_path / "log"), progress_bar("work", 1000, enabled=False) as advance:
        advance(900, known=True)
        for _ in range(5):
            now[0] += 2
            advance(10)
    last = records(tmp_path / "log")[-1]
    assert (last["done"], last["per_second"], last["seconds_left"]) == (950, 5, 10)


def test_nothing_new_has_no_rate(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with logged(records=tmp_path / "log"), progress_bar("work", 10, enabled=False) as advance:
        now[0] = 3
        advance(4, known=True)
    assert records(tmp_path / "log")[-1]["seconds_left"] is None


def test_many_of_a_kind_are_as_one(tmp_path, monkeypatch):
    """Ten phases of three seconds each, and a record in four."""
    now = [0.0]
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_RECORDS", 4.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with logged(records=tmp_path / "log"):
        for n in range(10):
            with progress_bar("product", 3, enabled=False, one_of_many=True) as advance:
                for _ in range(3):
                    now[0] += 1
                    advance(1, f"pass {n + 1}")
    found = records(tmp_path / "log")
    assert [(r["note"], r["done"]) for r in found[:3]] == [("pass 2", 1), ("pass 3", 2), ("pass 4", 3)]
    assert len(found) == 7


def test_a_product_says_which_iteration_it_is_of(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_RECORDS", 0.0)
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    task = tlx.Task(x[:4], torch.tensor([0, 1, 0, 1]), x[4:], torch.tensor([0, 1]))
    learner = tlx.MAML(tlx.models.mlp(3, 4, 2, seed=0).double(), inner_lr=0.1)
    with logged(records=tmp_path / "log"):
        tlx.TaskInfluence(learner, inverse=tlx.CG(damping=0.1)).fit([task]).scores([task])
    notes = [r["note"] for r in records(tmp_path / "log") if r.get("phase") == "Gauss-Newton product"]
    assert notes[0] == "pass 1"  # of Lanczos, for the ends of the spectrum
    assert "iteration 1, residual 1e+00" in notes
    assert notes[-1].startswith("iteration")  # of the effective rank
