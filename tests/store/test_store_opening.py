"""A store opens for what it was made with, for one process at a time; anything else is refused by name."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from crash import REFUSED, run_with_failure_at
from small_run import CHOICES, CONTEXT, ids, open_store

from tlxml_fast.errors import StoreError
from tlxml_fast.store import Store, verify
from tlxml_fast.store.manifest import first_difference


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            CONTEXT | {"parameters": "beef" * 10},
            "made with parameters c0ffeec0ffee…, and this run has beefbeefbeef…",
        ),
        (
            CONTEXT | {"learner": {"learner": "maml", "inner_steps": 1}},
            "made with learner.inner_steps 5, and this run has 1",
        ),
        (
            CONTEXT | {"learner": {"learner": "maml"}},
            "made with learner.inner_steps 5, and this run has absent",
        ),
        (without(CONTEXT, "dtype"), "made with dtype 'float32', and this run has absent"),
        (CONTEXT | {"damping": [0.1]}, r"made with damping absent, and this run has \[0.1\]"),
        (CONTEXT | {"learner": None}, r"made with learner \{.*\}, and this run has null"),
    ],
)
def test_another_context(tmp_path, context, says):
    open_store(tmp_path).close()
    with pytest.raises(StoreError, match=f"{tmp_path.name} was {says}$"):
        open_store(tmp_path, context=context)
    open_store(tmp_path).close()  # the lock was let go


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ([1, 2], [1, 3], "x.1 2, and this run has 3"),
        ([1, 2], [1], r"x \[1, 2\], and this run has \[1\]"),
        (1, 1.0, "x 1, and this run has 1.0"),
        (1, True, "x 1, and this run has true"),
        ({"a": {}}, {"a": {"b": None}}, "x.a.b absent, and this run has null"),
    ],
)
def test_differences_inside(tmp_path, old, new, says):
    open_store(tmp_path, context={"x": old}).close()
    with pytest.raises(StoreError, match=says):
        open_store(tmp_path, context={"x": new})


def test_the_same_context_in_other_types(tmp_path):
    open_store(tmp_path, context={"a": (1, float("nan")), "b": {}}).close()
    open_store(tmp_path, context={"b": {}, "a": [1, float("nan")]}).close()


def test_a_context_that_is_no_json(tmp_path):
    with pytest.raises(StoreError, match="written as JSON"):
        open_store(tmp_path, context={"x": torch.ones(1)})
    assert not list(tmp_path.iterdir())


def test_the_first_run_chooses(tmp_path):
    open_store(tmp_path).close()
    with open_store(tmp_path, shard_size=7, choices={"threads": 2, "simd": "default"}) as store:
        assert store.choices == CHOICES
        assert store.shard_size == 4
    with open_store(tmp_path, shard_size=None) as store:
        assert store.shard_size == 4


def test_a_choice_that_cannot_be_followed(tmp_path):
    open_store(tmp_path).close()
    open_store(tmp_path, possible={"threads": range(1, 3), "simd": ["x86-64-v3", "default"]}).close()
    with pytest.raises(
        StoreError, match=r"simd 'x86-64-v3', which cannot be followed here \(possible: 'default'\)"
    ):
        open_store(tmp_path, possible={"simd": ["default"]})
    with pytest.raises(StoreError, match="only this run has a choice of gram"):
        open_store(tmp_path, choices=CHOICES | {"gram": "mm"})
    with pytest.raises(StoreError, match="only the store has a choice of threads"):
        open_store(tmp_path, choices={"simd": "default"})


def test_the_first_task_that_differs(tmp_path):
    open_store(tmp_path, 10).close()
    other = [*ids(6), *ids(20)[13:]]
    with pytest.raises(
        StoreError, match=f"task 6 of this run is {ids(14)[13]}, and of the store {ids(7)[6]}"
    ):
        open_store(tmp_path, tasks=other)
    with pytest.raises(StoreError, match=f"task 6 of this run is 'name-6' \\({other[6][:8]}\\)"):
        open_store(tmp_path, tasks=other, names=[f"name-{i}" for i in range(len(other))])
    for count in (0, 1, 10, 12, 3, 12):
        open_store(tmp_path, count).close()


def test_ids_may_be_any_text(tmp_path):
    odd = ["", "a\nb", "é\u2028", '"']
    open_store(tmp_path, tasks=odd).close()
    open_store(tmp_path, tasks=[*odd, "more"]).close()


@pytest.mark.parametrize("size", [0, -1])
def test_a_shard_of_nothing(tmp_path, size):
    with pytest.raises(StoreError, match="at least one task"):
        open_store(tmp_path, shard_size=size)


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="file is a file, and a store is a directory"):
        open_store(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written: not a directory"):
        open_store(tmp_path / "file" / "store")


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".notes.txt.0123abcd.part").write_text("mine too")
    with pytest.raises(StoreError, match=r"no store, and not empty: 'notes\.txt' is in it"):
        open_store(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_directories_are_made(tmp_path):
    open_store(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b" / "manifest.json").exists()


# ---- one process at a time ----------------------------------------------------------------------------


@contextmanager
def another_process(directory: Path) -> Iterator[int]:
    """The id of a process that holds the store, until it is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            open_store(directory)
            os.write(writer, b"open")
            time.sleep(600)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 4) == b"open"
        yield child
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_two_processes(tmp_path):
    with another_process(tmp_path) as process:
        says = f"{tmp_path} is in use by process {process} on {os.uname().nodename}; a store serves one run"
        for use in (open_store, verify):
            with pytest.raises(StoreError, match=says):
                use(tmp_path)
    verify(tmp_path)
    with open_store(tmp_path):  # a killed process holds nothing
        outcome = run_with_failure_at(None, lambda: open_store(tmp_path))
        assert outcome.status == REFUSED
        assert f"in use by process {os.getpid()}" in outcome.message
        assert outcome.operations == []


def test_a_second_time_in_one_process(tmp_path):
    with open_store(tmp_path), pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        open_store(tmp_path)


def test_the_other_ranks_of_a_run(tmp_path):
    with pytest.raises(StoreError, match="is no store yet"):
        open_store(tmp_path, lock=False)
    assert not list(tmp_path.iterdir())
    with open_store(tmp_path), open_store(tmp_path, lock=False) as other:
        (tmp_path / ".manifest.json.0123abcd.part").touch()
        open_store(tmp_path, 3, lock=False).close()
        assert (tmp_path / ".manifest.json.0123abcd.part").exists()  # it may be another rank's, at work
        other.write("g", 1, {"x": torch.ones(4)})
        with pytest.raises(StoreError, match="knows 10 of 12 tasks"):
            open_store(tmp_path, 12, lock=False)
    with open_store(tmp_path) as store:
        assert store.read("g", 1) is not None
        assert not list(tmp_path.glob(".*.part"))


def test_open_is_all_there_is(tmp_path):
    with Store.open(str(tmp_path), {}, ["a"]) as store:
        assert (store.shard_size, store.choices, store.tasks) == (64, {}, ("a",))


def test_what_both_have_is_named_before_what_one_lacks():
    old, new = {"adapt": None, "learner": "maml"}, {"learner": "protonet", "distance": "cosine"}
    assert first_difference({"learner": old}, {"learner": new}) == ("learner.learner", "maml", "protonet")
    assert first_difference(old, {**new, "learner": "maml"})[0] == "adapt"
