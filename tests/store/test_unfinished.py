"""Iterations and sums over tasks that were stopped: the next run goes on from the last state, and leaves none."""

from __future__ import annotations

import pytest
import torch
from crash import run_with_failure_at, tree
from test_resume import learner, tasks

import tlxml_fast as tlx
from tlxml_fast import session
from tlxml_fast.curvature import CurvatureOperator
from tlxml_fast.curvature.gauss_newton import GaussNewton
from tlxml_fast.store import unfinished

pytestmark = pytest.mark.filterwarnings("ignore::tlxml_fast.InfluenceWarning")

INVERSES = {
    "cg": tlx.CG(damping=1e-3, tol=1e-10),
    "cg with a sketch": tlx.CG(damping=1e-3, tol=1e-10, preconditioner="nystrom"),
    "cg with a diagonal": tlx.CG(damping=1e-3, tol=1e-10, preconditioner="diagonal"),
    "nystrom": tlx.Nystrom(12, damping=0.05),
    "lanczos": tlx.Lanczos(8, tol=1e-6),
    "dense": tlx.Dense(damping=0.05),
}


@pytest.fixture(autouse=True)
def _keeps_every_state(monkeypatch):
    monkeypatch.setattr(session, "shard_size", lambda *_: 3)
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    monkeypatch.setattr("tlxml_fast.solvers.products.AT_ONCE", 4)


def run(store, name: str, count: int = 10) -> tlx.Scores:
    made = tlx.TaskInfluence(learner(), inverse=INVERSES[name], store=store)
    return made.fit(tasks(count)).scores(tasks(3, seed=1))


@pytest.fixture
def stopped(monkeypatch):
    """Stops a run at its n-th shape of a shard of a product or of the matrix; counts them."""

    class Stop:
        n, at = 0, None

        def __call__(self, of):
            def counted(*given):
                self.n += 1
                if self.n == self.at:
                    raise KeyboardInterrupt
                return of(*given)

            return counted

    stop = Stop()
    monkeypatch.setattr(GaussNewton, "total", stop(GaussNewton.total))
    monkeypatch.setattr(CurvatureOperator, "_cheapest", stop(CurvatureOperator._cheapest))
    return stop


@pytest.mark.parametrize("name", INVERSES)
def test_goes_on_from_the_last_shard(tmp_path, stopped, name):
    wanted = run(tmp_path / "undisturbed", name)
    shards = stopped.n
    for at in {*range(1, shards + 1, max(1, shards // 7)), shards}:
        store = tmp_path / str(at)
        stopped.n, stopped.at = 0, at
        with pytest.raises(KeyboardInterrupt):
            run(store, name)
        stopped.n, stopped.at = 0, None
        scores = run(store, name)
        assert torch.equal(scores.values, wanted.values)
        assert scores.info["certificate"] == wanted.info["certificate"]
        assert scores.info["curvature"] == wanted.info["curvature"]
        assert stopped.n - (shards - at) in (1, 2)  # a shard has tasks of two shapes
        assert tree(store) == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", INVERSES)
def test_nothing_is_left_and_nothing_is_made_twice(tmp_path, stopped, name):
    first = run(tmp_path, name)
    assert not list((tmp_path / "unfinished").iterdir())
    stopped.n = 0
    assert torch.equal(run(tmp_path, name).values, first.values)
    assert stopped.n == 0


def test_a_state_of_other_tasks_is_not_used(tmp_path, stopped):
    stopped.at = 30
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", "cg")
    stopped.at = None
    wanted = run(tmp_path / "fresh", "cg", count=12)
    assert torch.equal(run(tmp_path / "s", "cg", count=12).values, wanted.values)


def test_what_was_stopped_is_whole_and_told(tmp_path, stopped):
    stopped.at = 30
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "cg")
    assert tlx.store.verify(tmp_path).ok
    assert tlx.store.describe(tmp_path)["unfinished"]
    path = next((tmp_path / "unfinished").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    stopped.at = None
    assert not tlx.store.verify(tmp_path).ok
    with pytest.raises(tlx.TlxError, match=path.name):
        run(tmp_path, "cg")


Q = sum(p.numel() for p in learner().parameters().values())
ASKED = {
    "solve": lambda made: made.solve(torch.eye(5, Q, dtype=torch.float64)).X,
    "sweep": lambda made: made.damping_sweep([1e-2, 1e-3], tasks(3, seed=1)).scores[1].values,
    "streamed": lambda made: made.stream_scores(tasks(3, seed=1)).values,
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_for_and_not_kept_goes_on_in_another_process(tmp_path, stopped, what):
    def asked(store) -> torch.Tensor:
        return ASKED[what](tlx.TaskInfluence(learner(), inverse=INVERSES["cg"], store=store).fit(tasks(10)))

    wanted = asked(tmp_path / "undisturbed")
    shards = stopped.n
    stopped.n, stopped.at = 0, shards - 1
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path / "killed")
    stopped.n, stopped.at = 0, None
    assert torch.equal(asked(tmp_path / "killed"), wanted)
    assert stopped.n < shards / 2
    assert not list((tmp_path / "killed" / "unfinished").iterdir())


def test_what_did_not_converge_leaves_nothing(tmp_path):
    made = tlx.TaskInfluence(learner(), inverse=tlx.CG(damping=1e-6, tol=1e-12, max_iter=3), store=tmp_path)
    made.fit(tasks(10))
    with pytest.raises(tlx.CurvatureError, match="did not converge"):
        made.scores(tasks(3, seed=1))
    assert not list((tmp_path / "unfinished").iterdir())


def test_a_clock_takes_a_twentieth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(unfinished, "SECONDS", 30.0)
    monkeypatch.setattr(unfinished.time, "monotonic", lambda: now[0])
    clock, kept = unfinished.Clock(), 0
    while now[0] < 10_000:
        now[0] += 1
        if clock.due:
            with clock.keeping():
                now[0] += 5
            kept += 1
    assert kept == 10_000 // 105


@pytest.mark.parametrize("how", ["kill", "torn", "full"])
def test_a_failure_at_some_points(tmp_path, how):
    def job() -> None:
        run(tmp_path / "killed", "cg with a sketch")

    undisturbed = run_with_failure_at(None, lambda: run(tmp_path / "undisturbed", "cg with a sketch"))
    for n in range(0, len(undisturbed.operations), len(undisturbed.operations) // 12):
        run_with_failure_at(n, job, how)
        assert run_with_failure_at(None, job).status == 0
        assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")
