"""Whatever ends a run, and whenever: the next one finishes it, and every byte is as if nothing had happened."""

from collections.abc import Callable
from functools import partial
from shutil import copytree

import pytest
import small_run as small
from crash import assert_every_point_recovers, points, run_with_failure_at, tree
from small_run import gradient, ids, small_run

from tlxml_fast.files import tensors

HOW = ("kill", "torn", "cut", "full")


def some(how: str) -> Callable[[int], range]:
    """One point in five, others for each way to fail."""
    return lambda count: range(HOW.index(how), count, 5)


@pytest.mark.parametrize("how", HOW)
def test_a_new_store(tmp_path, how):
    assert assert_every_point_recovers(small_run, tmp_path, how, which=some(how)) > 10


@pytest.mark.parametrize("how", HOW)
def test_tasks_are_added(tmp_path, how):
    small_run(tmp_path / "before", 6)
    before = partial(copytree, tmp_path / "before")
    assert assert_every_point_recovers(small_run, tmp_path, how, prepare=before, which=some(how)) > 5


@pytest.mark.crash
@pytest.mark.parametrize(("how", "shards"), [("kill", 30), ("torn", 6), ("cut", 6), ("full", 6)])
@pytest.mark.parametrize("quarter", range(4))
def test_every_point_of_a_longer_run(tmp_path, monkeypatch, how, shards, quarter):
    monkeypatch.setattr(tensors, "CHUNK", 16)  # many writes a tensor
    run = partial(small_run, count=4 * shards - 2)
    tried = assert_every_point_recovers(run, tmp_path, how, which=lambda count: range(quarter, count, 4))
    assert 4 * tried > 34 * shards


@pytest.mark.slow
def test_runs_that_are_killed_again_and_again(tmp_path):
    wanted = len(points(partial(small_run, tmp_path / "undisturbed")))
    for step in range(1, 24):
        kills = 0
        while run_with_failure_at(step + kills, partial(small_run, tmp_path / str(step))).status:
            kills += 1
            assert kills <= wanted
        assert tree(tmp_path / str(step)) == tree(tmp_path / "undisturbed")


def test_a_finished_run_writes_nothing_but_its_lock(tmp_path):
    small_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    assert points(partial(small_run, tmp_path)) == ["write"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_adding_tasks_computes_only_those(tmp_path, monkeypatch):
    small_run(tmp_path, 6)
    computed = []
    monkeypatch.setattr(small, "gradient", lambda task: computed.append(task) or gradient(task))
    small_run(tmp_path, 10)
    assert computed == ids(10)[6:]


def test_a_file_is_synced_before_its_name_and_its_name_before_anything_else(tmp_path):
    done = points(partial(small_run, tmp_path / "store"))
    for i, name in enumerate(done):
        if name == "rename":
            assert (done[i - 1], done[i + 1]) == ("sync", "sync")
        if name == "make_directory":
            assert done[i + 1] == "sync"
