"""The benchmark: its baselines are right, a wrong contestant is not timed, a run writes what it promises."""

from __future__ import annotations

import json

import pytest
import torch
from tlxml_fast.benchmarks import run as bench
from tlxml_fast.benchmarks.cases import BASELINES, GENERAL, GRADIENTS, Case, Goal, conv4_flops
from tlxml_fast.benchmarks.measure import contest, validate
from tlxml_fast.benchmarks.tasks import random_tasks

import tlxml_fast as tlx
from tlxml_fast.ops import native_available

TINY = Case(
    "tiny product",
    lambda: tlx.MAML(tlx.models.mlp(4, 3, 5, seed=0), 0.25, 2),
    lambda seed: random_tasks(3, (4,), 1, queries=2, seed=seed),
    2,
    (*GENERAL, "torch.func, vmap over vectors", "torch.func, per vector", "autograd loop"),
    (Goal(GENERAL, 6, 12),),
    1.0,
)
needs_core = pytest.mark.skipif(not native_available(), reason="no core")


@needs_core
@pytest.mark.parametrize("K", [2, 0])
def test_all_baselines_are_right(K):
    learner = (lambda: tlx.ProtoNet(tlx.models.mlp(4, 3, 5, seed=0))) if K == 0 else TINY.learner
    case = Case("", learner, TINY.tasks, K, GRADIENTS if K == 0 else TINY.against)
    tasks = case.tasks(0)
    runs, missing = case.contestants(tasks, torch.float64)
    errors = validate(runs, case.truth(tasks))
    assert set(errors) | set(missing) == {"tlxml_fast", *case.against}
    assert set(missing) <= {"curvlinops"}
    assert all("tlxml_fast[bench]" in why for why in missing.values())


def test_a_wrong_contestant_is_not_timed():
    truth = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"b is wrong by 1\.0e-06"):
        validate({"a": truth.clone, "b": lambda: truth + 1e-6}, truth)


def test_contestants_run_in_turns():
    order = []
    timings = contest({n: lambda n=n: order.append(n) for n in "ab"}, {"a": 0.0, "b": 1e-12}, 3, 1.0)
    assert "".join(order) == "ab" * 4
    assert timings["a"].runs == 3
    assert timings["b"].error == 1e-12


@needs_core
def test_a_run_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "CASES", (TINY,))
    rows = bench.run(tmp_path, "tiny", rounds=2, seconds=0.1, progress=False)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["rows"] == json.loads(json.dumps(rows))
    assert {"machine", "sgemm", "copy"} <= set(written)
    (row,) = rows
    assert [goal["least"] for goal in row["goals"]] == [6, 0.45]
    assert all(t["error"] < 1e-9 for t in row["timings"].values())
    assert "tiny product" in (tmp_path / "bench.md").read_text()
    assert bench.table(rows).row_count == len(list(bench.lines(rows)))


def test_flops_of_four_convolutions():
    assert conv4_flops(64, 100) == pytest.approx(7.76e9, rel=0.02)
    assert set(TINY.against) <= set(BASELINES)
