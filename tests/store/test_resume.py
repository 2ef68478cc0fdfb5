"""An influence run over a store: stopped anywhere, and run again, it leaves what an undisturbed run leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from crash import assert_every_point_recovers, points

import tlxml_fast as tlx
import tlxml_fast.models
from tlxml_fast import memory, session
from tlxml_fast.files import tensors
from tlxml_fast.gradients import Gradients
from tlxml_fast.store import context

INVERSES = {
    "woodbury": (tlx.Fisher(3), tlx.Woodbury(damping=0.05)),
    "dense": (tlx.GaussNewton(), tlx.Dense(damping=0.05)),
}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(session, "shard_size", lambda *_: 3)


@pytest.fixture(autouse=True)
def _untrained(recwarn):
    """Nobody trained the learner, and it says so."""


def tasks(count: int, seed: int = 0) -> tlx.TaskSet:
    g = torch.Generator().manual_seed(seed)

    def one(i: int) -> tlx.Task:
        queries = 2 + i % 2
        x = torch.randn(4 + queries, 3, dtype=torch.float64, generator=g)
        return tlx.Task(x[:4], torch.tensor([0, 1, 0, 1]), x[4:], torch.arange(queries) % 2, name=f"t{i}")

    return tlx.TaskSet(one(i) for i in range(count))


def learner(seed: int = 0) -> tlx.MAML:
    return tlx.MAML(tlx.models.mlp(3, 4, 2, seed=seed).double(), inner_lr=0.1)


def run(store: Path, count: int = 10, kind: str = "woodbury", seed: int = 0, **more) -> tlx.Scores:
    curvature, inverse = INVERSES[kind]
    made = tlx.TaskInfluence(learner(seed), curvature, inverse, store=store, **more)
    return made.fit(tasks(count)).scores(tasks(3, seed=1))


def fresh(count: int = 10, kind: str = "woodbury") -> tlx.Scores:
    curvature, inverse = INVERSES[kind]
    return tlx.TaskInfluence(learner(), curvature, inverse).fit(tasks(count)).scores(tasks(3, seed=1))


@pytest.mark.parametrize("kind", INVERSES)
def test_a_store_changes_nothing(tmp_path, kind):
    first, again = run(tmp_path / "s", kind=kind), run(tmp_path / "s", kind=kind)
    assert torch.equal(first.values, again.values)
    assert first.info["certificate"] == again.info["certificate"]
    torch.testing.assert_close(first.values, fresh(kind=kind).values, rtol=1e-10, atol=1e-14)


def test_what_is_stored_is_not_computed_again(tmp_path, monkeypatch):
    first = run(tmp_path / "s")
    monkeypatch.setattr("tlxml_fast.gradients.Gradients._of", None)
    monkeypatch.setattr("tlxml_fast.curvature.operator.CurvatureOperator._rows_of", None)
    monkeypatch.setattr("tlxml_fast.explained.Explained.of", None)
    assert torch.equal(run(tmp_path / "s").values, first.values)


def test_added_tasks_are_the_only_ones_computed(tmp_path, monkeypatch):
    run(tmp_path / "s", count=7)
    seen = []
    gradients = (
        tlx.Gradients if hasattr(tlx, "Gradients") else __import__("tlxml_fast.gradients").gradients.Gradients
    )
    of = gradients._of

    def counted(self, buckets):
        seen.extend(task.name for task in buckets.tasks)
        return of(self, buckets)

    monkeypatch.setattr(Gradients, "_of", counted)
    scores = run(tmp_path / "s", count=10)
    assert seen == ["t7", "t8", "t9"]
    torch.testing.assert_close(scores.values, fresh(10).values, rtol=1e-10, atol=1e-14)


def test_other_settings_beside_each_other(tmp_path):
    a = run(tmp_path / "s")
    run(tmp_path / "s", kind="dense")
    assert torch.equal(run(tmp_path / "s").values, a.values)


def test_compressed(tmp_path):
    options = {"compression": tlx.SJLT(8, storage=torch.bfloat16), "kind": "dense"}
    a = run(tmp_path / "s", **options)
    assert torch.equal(run(tmp_path / "s", **options).values, a.values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "parameters"),
        ({"dtype": torch.float32}, "dtype"),
        ({"backend": "reference"}, "backend"),
    ],
)
def test_another_run_is_refused(tmp_path, change, message):
    run(tmp_path / "s")
    with pytest.raises(tlx.TlxError, match=message):
        run(tmp_path / "s", **change)


def test_other_tasks_are_refused(tmp_path):
    run(tmp_path / "s")
    other = tlx.TaskInfluence(learner(), tlx.GaussNewton(), tlx.Woodbury(damping=0.05), store=tmp_path / "s")
    with pytest.raises(tlx.TlxError, match="t0"):
        other.fit(tasks(10, seed=5))


def test_threads_are_those_of_the_first_run(tmp_path):
    before = torch.get_num_threads()
    run(tmp_path / "s")
    torch.set_num_threads(1)
    try:
        run(tmp_path / "s")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_device_is_filled_as_in_the_first_run(tmp_path, monkeypatch):
    seen, of = [], Gradients._of
    monkeypatch.setattr(Gradients, "_of", lambda *given: seen.append(memory.on_device()) or of(*given))
    for free, count in ((123 << 20, 3), (456 << 20, 6)):
        made = {**context.choices(torch.device("cpu")), "memory free on the device": free}
        monkeypatch.setattr(session, "choices", lambda device, made=made: made)
        run(tmp_path, count)
    assert seen == [123 << 20] * 2
    assert memory.on_device() is None


SKETCHED = {"damping": 0.05, "tol": 1e-9}
BESIDE = {
    "the curvature's seed": (tlx.Fisher(2, seed=1), tlx.Woodbury(damping=0.05), tlx.SJLT(16)),
    "the compression's seed": (tlx.Fisher(2), tlx.Woodbury(damping=0.05), tlx.SJLT(16, seed=1)),
    "the inverse's": (tlx.Fisher(2), tlx.Nystrom(6, damping=0.05, seed=1), None),
    "the curvature's under it": (tlx.Fisher(2, seed=1), tlx.Nystrom(6, damping=0.05), None),
    "a damping's last digits": (tlx.Fisher(2), tlx.Woodbury(damping=tlx.Relative(0.12345649)), None),
    "and others": (tlx.Fisher(2), tlx.Woodbury(damping=tlx.Relative(0.1234561)), None),
    "a curvature beside a sketch": (
        tlx.GaussNewton(),
        tlx.CG(**SKETCHED, preconditioner=tlx.Sketch(tlx.Fisher(2))),
        None,
    ),
    "another": (tlx.Fisher(5), tlx.CG(**SKETCHED, preconditioner=tlx.Sketch(tlx.Fisher(2))), None),
}


def test_nothing_stale_is_used(tmp_path):
    for name, (curvature, inverse, compression) in BESIDE.items():
        made = [
            tlx.TaskInfluence(learner(), curvature, inverse, compression=compression, store=store)
            for store in (tmp_path / "s", tmp_path / name)
        ]
        shared, own = (one.fit(tasks(10)).scores(tasks(3, seed=1)) for one in made)
        assert torch.equal(shared.values, own.values), name


def test_what_did_not_converge_is_not_taken_for_what_did(tmp_path):
    options = {"damping": 1e-6, "tol": 1e-12, "max_iter": 2}
    loose = tlx.TaskInfluence(
        learner(), inverse=tlx.CG(**options, allow_unconverged=True), store=tmp_path / "s"
    )
    loose.fit(tasks(10))
    with pytest.warns(tlx.InfluenceWarning, match="did not converge"):
        scores = loose.scores(tasks(3, seed=1))
    assert not scores.converged
    strict = tlx.TaskInfluence(learner(), inverse=tlx.CG(**options), store=tmp_path / "s").fit(tasks(10))
    with pytest.raises(tlx.CurvatureError, match="did not converge"):
        strict.scores(tasks(3, seed=1))


class Scaled(torch.nn.Module):
    """An MLP with a frozen layer, a buffer, and an attribute that `repr` does not show."""

    def __init__(self, frozen: float = 1.0, buffer: float = 1.0, hidden: float = 1.0):
        super().__init__()
        self.body = tlx.models.mlp(3, 4, 2, seed=0)
        self.frozen = torch.nn.Parameter(torch.tensor(frozen), requires_grad=False)
        self.register_buffer("scale", torch.tensor(buffer))
        self.hidden = hidden

    def forward(self, x):
        return self.body(x) * self.frozen * self.scale * self.hidden


@pytest.mark.parametrize("what", ["frozen", "buffer", "hidden"])
def test_a_model_that_differs_in_any_way_is_refused(tmp_path, what):
    def fit(**changed) -> None:
        module = Scaled(**changed).double()
        tlx.TaskInfluence(tlx.MAML(module, inner_lr=0.1), store=tmp_path / "s").fit(tasks(4))

    fit()
    with pytest.raises(tlx.TlxError, match="was made with"):
        fit(**{what: 2.0})


def test_rates_of_equal_mean_are_told_apart(tmp_path):
    rates = {name: torch.full_like(p, 0.3) for name, p in learner().parameters().items()}
    tlx.TaskInfluence(tlx.MAML(learner().module, inner_lr=rates), store=tmp_path / "s").fit(tasks(4))
    moved = {name: rate.clone() for name, rate in rates.items()}
    first = next(rate for rate in moved.values() if rate.numel() > 1).view(-1)
    first[0], first[1] = 0.1, 0.5
    with pytest.raises(tlx.TlxError, match="was made with"):
        tlx.TaskInfluence(tlx.MAML(learner().module, inner_lr=moved), store=tmp_path / "s").fit(tasks(4))


def test_a_learner_that_changes_after_fit_is_refused():
    module = Scaled().double()
    made = tlx.TaskInfluence(tlx.MAML(module, inner_lr=0.1)).fit(tasks(4))
    module.scale.mul_(2)
    with pytest.raises(tlx.LearnerError, match="changed since fit"):
        made.scores(tasks(2, seed=1))


@pytest.mark.parametrize(
    ("how", "kind"), [("kill", "woodbury"), ("kill", "dense"), ("torn", "woodbury"), ("full", "dense")]
)
def test_a_failure_at_some_points(tmp_path, how, kind):
    def job(store: Path) -> None:
        run(store, kind=kind)

    assert assert_every_point_recovers(job, tmp_path, how, which=lambda n: range(0, n, 17)) > 3


@pytest.mark.crash
@pytest.mark.parametrize("how", ["kill", "torn", "cut"])
def test_a_failure_at_every_point(tmp_path, monkeypatch, how):
    monkeypatch.setattr(tensors, "CHUNK", 16)  # many writes a tensor
    assert len(points(lambda: run(tmp_path / "count"))) >= 1000
    assert assert_every_point_recovers(run, tmp_path, how) >= 1000
