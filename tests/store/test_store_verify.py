"""`verify` finds what is wrong with a store, `describe` tells what it is."""

import json
import shutil

import pytest
from small_run import CHOICES, CONTEXT, open_store, small_run

from tlxml_fast.errors import StoreError
from tlxml_fast.store import describe, verify


def test_a_whole_store_has_no_findings(tmp_path):
    small_run(tmp_path)
    found = verify(tmp_path)
    files = [*tmp_path.glob("shards/*/*"), *tmp_path.glob("whole/*")]
    assert (found.findings, found.ok, found.files) == ((), True, 7)
    assert found.bytes == sum(path.stat().st_size for path in files)


def test_it_tells_what_is_missing_and_left_over(tmp_path):
    small_run(tmp_path, 6)
    open_store(tmp_path, 10).close()
    (tmp_path / "shards/gradients/00000000.safetensors").unlink()
    (tmp_path / "shards/rows/.00000000.safetensors.0123abcd.part").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "shards/rows/extra.safetensors").touch()
    found = verify(tmp_path)
    assert found.ok
    assert [(f.what, str(f.path.relative_to(tmp_path))) for f in found.findings] == [
        ("partial", "shards/gradients/00000001.safetensors"),
        ("partial", "shards/rows/00000001.safetensors"),
        ("missing", "shards/gradients/00000000.safetensors"),
        ("missing", "shards/gradients/00000002.safetensors"),
        ("missing", "shards/rows/00000002.safetensors"),
        ("leftover", "shards/rows/.00000000.safetensors.0123abcd.part"),
        ("foreign", "notes.txt"),
        ("foreign", "shards/rows/extra.safetensors"),
    ]
    assert str(found.findings[0]) == f"{tmp_path}/shards/gradients/00000001.safetensors has 2 of 4 tasks"


def test_it_tells_of_what_others_were_made_of(tmp_path):
    small_run(tmp_path)
    (tmp_path / "tasks.safetensors").unlink()
    shutil.rmtree(tmp_path / "shards")
    found = verify(tmp_path)
    assert found.ok
    missing = [str(f.path.relative_to(tmp_path)) for f in found.findings if f.what == "missing"]
    assert missing == ["tasks.safetensors", "shards/gradients"]


def test_it_changes_nothing(tmp_path):
    small_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    verify(tmp_path)
    describe(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_copy_without_its_lock(tmp_path):
    small_run(tmp_path)
    (tmp_path / ".lock").unlink()
    assert verify(tmp_path).findings == ()


def test_what_there_is(tmp_path):
    small_run(tmp_path)
    found = describe(tmp_path)
    assert json.loads(json.dumps(found)) == found
    assert (found["context"], found["choices"]) == (CONTEXT, CHOICES)
    assert (found["tasks"], found["shard_size"], found["shards"]) == (10, 4, 3)
    assert {kind: held["shards"] for kind, held in found["kinds"].items()} == {"gradients": 3, "rows": 3}
    assert (
        found["bytes"]
        == verify(tmp_path).bytes
        == sum(found["whole"].values()) + sum(held["bytes"] for held in found["kinds"].values())
    )


@pytest.mark.parametrize("look", [verify, describe])
def test_no_store(tmp_path, look):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match=r"is no store: it has no manifest\.json"):
            look(directory)
