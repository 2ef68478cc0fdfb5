"""Damage is an error that names the file; nothing of it is used, and deleting the file is enough."""

import json
import re
import shutil

import pytest
import torch
from crash import tree
from small_run import ids, open_store, small_run

from tlxml_fast.errors import StoreError
from tlxml_fast.files import read_tensors, write_tensors
from tlxml_fast.store import digest, verify

SHARD, OTHER, FACTOR = (
    "shards/gradients/00000001.safetensors",
    "shards/gradients/00000000.safetensors",
    "whole/factor.safetensors",
)


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "store"
    small_run(directory)
    return directory


@pytest.fixture
def store(whole_store, tmp_path):
    return shutil.copytree(whole_store, tmp_path / "store")


def places(data: bytes) -> dict[str, int]:
    """A byte of every region of a tensor file."""
    first = 8 + int.from_bytes(data[:8], "little")
    return {
        "length": 0,
        "length, high": 7,
        "index, first": 8,
        "index, header": data.index(b"header") + 20,
        "index, checksum": data.index(b"sha256") + 12,
        "index, dtype": data.index(b"dtype") + 9,
        "index, last": first - 1,
        "tensor, first": first,
        "tensor, last": len(data) - 1,
    }


REGIONS = [*places(b"12345678 header sha256 dtype")]


@pytest.mark.parametrize("name", [SHARD, FACTOR, "tasks.safetensors"])
@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit(store, name, region):
    whole, path = tree(store), store / name
    data = bytearray(path.read_bytes())
    data[places(bytes(data))[region]] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{re.escape(str(path))} .*; delete it, and it is computed again$"):
        small_run(store)
    findings = verify(store)
    assert not findings.ok
    assert [f.path for f in findings.findings if f.what == "damaged"] == [path]
    path.unlink()
    small_run(store)
    assert tree(store) == whole


@pytest.mark.parametrize("name", [SHARD, FACTOR, "tasks.safetensors"])
@pytest.mark.parametrize("length", [0, 3, 8, 100, -4, -1])
def test_a_truncated_file(store, name, length):
    path = store / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=f"{re.escape(str(path))} .*; delete it"):
        small_run(store)
    assert [f.path for f in verify(store).findings if f.what == "damaged"] == [path]


def test_every_bit_of_the_manifest(store):
    path = store / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(StoreError, match=re.escape(str(path))):
            open_store(store)
    with pytest.raises(StoreError, match=re.escape(str(path))):
        verify(store)


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"tlxml_fast": "store"}', "[" * 100_000])
def test_a_manifest_of_something_else(store, text):
    (store / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        small_run(store)


def test_a_later_format(store):
    path = store / "manifest.json"
    found = json.loads(path.read_text())
    found |= {"format": 2, "more": 1}
    found["sha256"] = digest({k: v for k, v in found.items() if k not in ("tlxml_fast", "sha256")})
    path.write_text(json.dumps(found))
    with pytest.raises(StoreError, match="is a store of format 2, and format 1 is read here"):
        small_run(store)


def test_the_same_run_writes_a_lost_manifest_again(store):
    whole = tree(store)
    (store / "manifest.json").unlink()
    small_run(store)
    assert tree(store) == whole


def test_another_run_does_not(store):
    whole = tree(store)
    (store / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"tasks\.safetensors was made with another context"):
        open_store(store, context={"parameters": "others"})
    small_run(store)
    assert tree(store) == whole


def test_files_of_another_store(store, tmp_path):
    for name in (OTHER, FACTOR):
        with open_store(tmp_path / "other", context={"parameters": "others"}) as other:
            (tmp_path / "other" / name).parent.mkdir(parents=True)
            shutil.copy(store / name, tmp_path / "other" / name)
            with pytest.raises(StoreError, match="made with another context"):
                other.read("gradients", 0) if name.startswith("shards") else other.read_whole(
                    "factor", ids(10)
                )
    assert [f.what for f in verify(tmp_path / "other").findings] == ["damaged"] * 2 + ["missing"] * 2


def test_a_shard_in_the_place_of_another(store):
    shutil.copy(store / OTHER, store / SHARD)
    with pytest.raises(StoreError, match=f"{SHARD} is shard 0 of 'gradients', out of its place; delete it"):
        small_run(store)
    assert [f.what for f in verify(store).findings] == ["damaged"]


def test_a_kind_in_the_place_of_another(store):
    shutil.copy(store / SHARD.replace("gradients", "rows"), store / SHARD)
    with pytest.raises(StoreError, match="is shard 1 of 'rows', out of its place"):
        small_run(store)
    assert [f.what for f in verify(store).findings] == ["damaged"]


def test_a_result_in_the_place_of_another(store):
    shutil.copy(store / FACTOR, store / "whole" / "scores.safetensors")
    with (
        open_store(store) as opened,
        pytest.raises(StoreError, match="is the result 'factor', out of its place"),
    ):
        opened.read_whole("scores", ids(10))
    shutil.copy(store / SHARD, store / FACTOR)
    with pytest.raises(StoreError, match=f"{FACTOR} is not a tlxml_fast store result file; delete it"):
        small_run(store)
    assert [f.what for f in verify(store).findings] == ["damaged", "damaged"]


def test_a_shard_of_other_tasks(store, tmp_path):
    tensors, header = read_tensors(store / SHARD, "store shard")
    write_tensors(store / SHARD, "store shard", tensors, header | {"tasks": ids(30)[20:24]})
    with pytest.raises(StoreError, match=f"its task 0 is {ids(30)[20][:8]} where {ids(5)[4][:8]} belongs"):
        small_run(store)
    assert [f.what for f in verify(store).findings] == ["damaged"]


@pytest.mark.parametrize("change", [{"tasks": None}, {"counts": 3}, {"context": ...}, {"kind": ...}])
def test_a_header_of_another_form(store, change):
    tensors, header = read_tensors(store / SHARD, "store shard")
    header = {k: v for k, v in (header | change).items() if v is not ...}
    write_tensors(store / SHARD, "store shard", tensors, header)
    with pytest.raises(StoreError, match=f"{SHARD} cannot be understood: .*; delete it"):
        small_run(store)


def test_a_damaged_shard_costs_no_other(store):
    (store / SHARD).write_bytes(b"")
    with open_store(store) as opened:
        assert opened.read("gradients", 0).n == 4
        with pytest.raises(StoreError):
            opened.read("gradients", 1)
        opened.write("gradients", 1, {"gradients": torch.zeros(4, 5)})
        assert opened.read("gradients", 1).n == 4
