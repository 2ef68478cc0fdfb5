"""Whole runs on a CUDA device, against the same on the CPU in float64. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast.benchmarks.tasks import random_tasks
from tlxml_fast.models import conv4, mlp

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

WAYS = {
    "Gauss-Newton, dense": (tlx.GaussNewton(), tlx.Dense(damping=1e-2)),
    "Hessian, dense": (tlx.Hessian(), tlx.Dense(damping=1e-1)),
    "Gauss-Newton, CG": (tlx.GaussNewton(), tlx.CG(damping=1e-2, tol=1e-10)),
    "Gauss-Newton, Nyström": (tlx.GaussNewton(), tlx.Nystrom(rank=8, damping=1e-2)),
    "Gauss-Newton, Lanczos": (tlx.GaussNewton(), tlx.Lanczos(rank=6)),
    "Gauss-Newton, Woodbury": (tlx.GaussNewton(), tlx.Woodbury(damping=1e-2)),
    "Fisher, Woodbury": (tlx.Fisher(4), tlx.Woodbury(damping=tlx.Relative(1e-2))),
    "identity": (tlx.Identity(), None),
}


def learner(kind: str, device: str) -> tlx.Learner:
    """In float64."""
    if kind == "MAML":
        return tlx.MAML(mlp(6, 5, 3, seed=0).double().to(device), 0.1, 2)
    return tlx.ProtoNet(conv4(4, image_size=16, seed=0).double().to(device))


def tasks(kind: str) -> tuple[tlx.TaskSet, tlx.TaskSet]:
    """To fit, and to explain."""
    shape = (6,) if kind == "MAML" else (1, 16, 16)
    made = random_tasks(11, shape, 2, ways=3, queries=4)
    return made[:8], made[8:]


def influence(kind: str, device: str, way: str, **given) -> tuple[tlx.TaskInfluence, tlx.Scores]:
    curvature, inverse = WAYS[way]
    made = tlx.TaskInfluence(learner(kind, device), curvature, inverse, dtype=torch.float64, **given)
    train, test = tasks(kind)
    return made, made.fit(train).scores(test)


def near(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=1e-6, atol=1e-7 * float(want.abs().max()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["MAML", "ProtoNet"])
def test_scores(kind, way):
    reference, want = influence(kind, "cpu", way)
    ours, got = influence(kind, DEVICE, way)
    assert got.values.device.type == "cpu"
    near(got.values, want.values)
    near(ours.meta(0), reference.meta(0))
    test = tasks(kind)[1][0]
    near(ours.adaptation(test, 0), reference.adaptation(test, 0))


@pytest.mark.parametrize("compression", [tlx.SJLT(32), tlx.SRHT(32), tlx.Rademacher(32)], ids=str)
def test_compressed(compression):
    way = "Gauss-Newton, Woodbury"
    want, got = (
        influence("MAML", device, way, compression=compression)[1].values for device in ("cpu", DEVICE)
    )
    near(got, want)


def test_streamed_diagnosed_saved_and_reported(tmp_path):
    made, scores = influence("ProtoNet", DEVICE, "Gauss-Newton, Woodbury")
    train, test = tasks("ProtoNet")
    streamed = made.stream_scores(test)
    assert torch.equal(streamed.helpful(3).indices, scores.helpful(3).indices)
    assert {check.name for check in tlx.diagnose(made, test).checks}
    scores.save(tmp_path / "scores.safetensors")
    assert torch.equal(tlx.Scores.load(tmp_path / "scores.safetensors").values, scores.values)
    tlx.write_report(tmp_path / "report.html", scores, train, test)
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("way", ["Gauss-Newton, dense", "Fisher, Woodbury"])
def test_a_store(tmp_path, way):
    """Read again it gives the same; the CPU is not to go on with it."""
    first = influence("MAML", DEVICE, way, store=tmp_path)[1]
    near(first.values, influence("MAML", DEVICE, way)[1].values)
    assert torch.equal(influence("MAML", DEVICE, way, store=tmp_path)[1].values, first.values)
    with pytest.raises(tlx.StoreError, match="device"):
        influence("MAML", "cpu", way, store=tmp_path)


@pytest.mark.parametrize("kind", ["MAML", "ProtoNet"])
def test_meta_training(kind):
    train = tasks(kind)[0]
    trained = learner(kind, DEVICE)
    before = tlx.evaluate(trained, train).loss
    tlx.meta_train(trained, train, steps=20, batch_size=4, lr=1e-2)
    assert tlx.evaluate(trained, train).loss < before
    assert all(p.is_cuda for p in trained.parameters().values())


def test_commands(tmp_path):
    from typer.testing import CliRunner

    from tlxml_fast.cli import app

    ran = CliRunner().invoke(
        app,
        ["demo", "--out", str(tmp_path), "--tasks", "24", "--test-tasks", "4", "--steps", "4", "--device", DEVICE],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "report.html").stat().st_size > 10_000
