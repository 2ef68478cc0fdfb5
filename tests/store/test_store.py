"""What is stored comes back: whole shards, parts of shards, ragged rows and results."""

import pytest
import torch
from small_run import ids, open_store

from tlxml_fast import TlxError
from tlxml_fast.errors import StoreError
from tlxml_fast.store import digest


def of(tasks: int, rows: int = 1, q: int = 3) -> torch.Tensor:
    return torch.arange(tasks * rows * q, dtype=torch.float64).reshape(tasks * rows, q)


@pytest.mark.parametrize(
    ("count", "size", "shards"), [(10, 4, 3), (8, 4, 2), (1, 1, 1), (3, 64, 1), (5, 1, 5), (0, 4, 0)]
)
def test_shards_are_consecutive_tasks(tmp_path, count, size, shards):
    with open_store(tmp_path, count, size) as store:
        assert len(store) == shards
        assert [t for i in range(shards) for t in store.tasks[store.span(i)]] == ids(count)
        with pytest.raises(StoreError, match=f"no shard {shards} of {shards}"):
            store.span(shards)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_shard_comes_back(tmp_path, mapped):
    wanted = {"g": of(4), "loss": torch.randn(4), "rows": of(4, 3).bfloat16(), "none": torch.empty(0, 7)}
    with open_store(tmp_path) as store:
        assert store.read("gradients", 1, mapped) is None
        store.write("gradients", 1, wanted)
        assert store.read("gradients", 0, mapped) is None
        assert store.read("other", 1, mapped) is None
    with open_store(tmp_path) as store:
        shard = store.read("gradients", 1, mapped)
    assert shard.n == 4
    assert shard.keys() == wanted.keys()
    assert all(torch.equal(shard[name], t) and shard[name].dtype == t.dtype for name, t in wanted.items())


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("stored", "asked"), [(10, 9), (10, 10), (9, 10), (9, 14)])
def test_a_last_shard_of_fewer_tasks(tmp_path, stored, asked, mapped):
    n, counts = stored - 8, [3, 1][: stored - 8]
    with open_store(tmp_path, stored) as store:
        store.write("g", 2, {"g": of(n), "two": of(n, 2), "ragged": of(sum(counts))}, {"ragged": counts})
    with open_store(tmp_path, asked) as store:
        shard = store.read("g", 2, mapped)
    held = min(stored, asked) - 8
    assert shard.n == held
    assert torch.equal(shard["g"], of(held))
    assert torch.equal(shard["two"], of(held, 2))
    assert torch.equal(shard["ragged"], of(sum(counts[:held])))


@pytest.mark.parametrize(
    ("t", "counts"),
    [
        (torch.ones(()), None),
        (torch.ones(3, 2), None),
        (torch.ones(8, 2), [2, 2, 2, 1]),
        (torch.ones(8, 2), [4, 4]),
    ],
)
def test_rows_that_are_not_those_of_the_tasks(tmp_path, t, counts):
    with open_store(tmp_path) as store, pytest.raises(StoreError, match=r"'x' of shape .* 4 tasks"):
        store.write("g", 0, {"x": t}, counts and {"x": counts})


@pytest.mark.parametrize("mapped", [False, True])
def test_a_result_comes_back_for_its_key_alone(tmp_path, mapped):
    key = {"tasks": ids(3), "damping": 0.1}
    with open_store(tmp_path) as store:
        assert store.read_whole("factor", key, mapped) is None
        store.write_whole("factor", key, {"L": of(2)}, {"rank": 2})
        tensors, header = store.read_whole("factor", dict(reversed(key.items())), mapped)
        assert torch.equal(tensors["L"], of(2))
        assert header == {"rank": 2}
        assert store.read_whole("factor", key | {"damping": 0.2}, mapped) is None
        store.write_whole("factor", key | {"damping": 0.2}, {"L": of(3)})
        assert store.read_whole("factor", key, mapped) is None
        assert torch.equal(store.read_whole("factor", key | {"damping": 0.2}, mapped)[0]["L"], of(3))


def test_a_shard_can_be_written_again(tmp_path):
    with open_store(tmp_path) as store:
        store.write("g", 0, {"x": of(4)})
        old = store.read("g", 0, mapped=True)["x"]
        store.write("g", 0, {"x": -of(4)})
        assert torch.equal(store.read("g", 0, mapped=True)["x"], -of(4))
        assert torch.equal(old, of(4))


def test_a_mapped_file_is_checked_once(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        store.write("g", 0, {"x": of(4)})
        store.read("g", 0, mapped=True)
        monkeypatch.setattr("tlxml_fast.files.tensors._checksum", None)
        assert torch.equal(store.read("g", 0, mapped=True)["x"], of(4))
        with pytest.raises(StoreError):
            store.read("g", 0)  # copied into memory, which costs no more when it is checked


def test_a_file_that_changed_is_checked_again(tmp_path):
    with open_store(tmp_path) as store:
        store.write("g", 0, {"x": of(4)})
        store.read("g", 0, mapped=True)
        with open(tmp_path / "shards/g/00000000.safetensors", "r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
        with pytest.raises(StoreError, match="does not match its checksum"):
            store.read("g", 0, mapped=True)


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "é"])
def test_a_name_is_no_path(tmp_path, name):
    with open_store(tmp_path) as store:
        with pytest.raises(StoreError, match="names nothing"):
            store.write(name, 0, {"x": of(4)})
        with pytest.raises(StoreError, match="names nothing"):
            store.write_whole(name, 0, {})


def test_a_closed_store_can_be_read(tmp_path):
    with open_store(tmp_path) as store:
        store.write("g", 0, {"x": of(4)})
    assert torch.equal(store.read("g", 0)["x"], of(4))
    for write in (lambda: store.write("g", 0, {"x": of(4)}), lambda: store.write_whole("f", 0, {})):
        with pytest.raises(StoreError, match="has been closed"):
            write()
    store.close()


def test_a_digest_is_of_the_value():
    assert digest({"a": 1, "b": [0.1]}) == digest({"b": [0.1], "a": 1})
    assert len({digest(v) for v in (1, "1", [1], 1.5, True, None, {"1": 1})}) == 7
    assert issubclass(StoreError, TlxError)
