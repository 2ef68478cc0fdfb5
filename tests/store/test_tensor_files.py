"""Tensor files: safetensors reads what is written and writes what is read, without copies and with bounded memory."""

import os

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from tlxml_fast import CheckpointError
from tlxml_fast.files import read_tensors, tensors, write_tensors

SHAPES = [(), (0,), (1,), (3, 0, 2), (5,), (2, 3), (1, 7, 1)]


def some(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.Size(shape).numel() * dtype.itemsize
    data = (torch.arange(count) % (2 if dtype == torch.bool else 256)).to(torch.uint8)
    return data.view(dtype).reshape(shape)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the bit, NaNs included."""
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*flat)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 4 << 20])
def test_every_dtype_and_shape_comes_back(tmp_path, monkeypatch, chunk, mapped):
    monkeypatch.setattr(tensors, "CHUNK", chunk)
    wanted = {f"{d}{s}": some(d, s) for d in tensors.DTYPES.values() for s in SHAPES}
    write_tensors(tmp_path / "x", "thing", wanted, {"note": "∇"})
    found, header = read_tensors(tmp_path / "x", "thing", mapped)
    assert header == {"note": "∇"}
    assert found.keys() == wanted.keys()
    assert all(same(found[name], t) for name, t in wanted.items())


def test_safetensors_reads_it(tmp_path):
    wanted = {f"{d}{s}": some(d, s) for d in tensors.DTYPES.values() for s in SHAPES}
    write_tensors(tmp_path / "x", "thing", wanted, {})
    found = load_file(tmp_path / "x")
    assert found.keys() == wanted.keys()
    assert all(same(found[name], t) for name, t in wanted.items())


def test_what_safetensors_wrote_is_read(tmp_path):
    wanted = {"b": torch.randn(3, 5), "a": torch.arange(7, dtype=torch.int16), "c": torch.randn(2).double()}
    write_tensors(tmp_path / "ours", "thing", wanted, {"note": 1})
    with safetensors.safe_open(tmp_path / "ours", framework="pt") as file:
        save_file(wanted, tmp_path / "theirs", file.metadata())
    found, header = read_tensors(tmp_path / "theirs", "thing")
    assert header == {"note": 1}
    assert all(same(found[name], t) for name, t in wanted.items())


@pytest.mark.parametrize(
    "t",
    [
        torch.randn(4, 6).mT,
        torch.randn(9, 4)[::2, 1:],
        torch.randn(3).expand(5, 3),
        torch.randn(2, 3, dtype=torch.complex64).conj(),
        torch._neg_view(torch.randn(3)),
        torch.randn(3, requires_grad=True),
    ],
)
def test_views_are_written_by_value(tmp_path, t):
    write_tensors(tmp_path / "x", "thing", {"t": t}, {})
    assert torch.equal(read_tensors(tmp_path / "x", "thing")[0]["t"], t.detach())


def test_a_dtype_without_a_name_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"'z' is of torch\.complex128"):
        write_tensors(tmp_path / "x", "thing", {"z": torch.ones(1, dtype=torch.complex128)}, {})
    assert not (tmp_path / "x").exists()


def test_writing_to_a_mapped_tensor_changes_no_file(tmp_path):
    write_tensors(tmp_path / "x", "thing", {"t": torch.zeros(4)}, {})
    mapped = read_tensors(tmp_path / "x", "thing", mapped=True)[0]["t"]
    mapped += 1
    assert torch.equal(read_tensors(tmp_path / "x", "thing")[0]["t"], torch.zeros(4))


def test_a_mapped_tensor_outlives_its_file(tmp_path):
    write_tensors(tmp_path / "x", "thing", {"t": torch.arange(5000)}, {})
    mapped = read_tensors(tmp_path / "x", "thing", mapped=True)[0]["t"]
    write_tensors(tmp_path / "x", "thing", {"t": torch.zeros(1)}, {})
    (tmp_path / "x").unlink()
    assert torch.equal(mapped, torch.arange(5000))


def test_large_tensors_are_neither_copied_to_be_written_nor_touched_to_be_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 1 << 20)
    size = 64 << 20
    t = torch.ones(size, dtype=torch.uint8)
    before = peak_reset()
    write_tensors(tmp_path / "x", "thing", {"t": t}, {})
    mapped = read_tensors(tmp_path / "x", "thing", mapped=True)[0]["t"]
    assert peak() - before < size // 4
    assert int(mapped[::4096].sum()) == size // 4096  # it is resident now
    assert peak() - before >= size // 2


def peak_reset() -> int:
    """The resident memory now, from which its peak is measured again."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


def peak() -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("mapped", [False, True])
def test_no_bit_can_change_unnoticed(tmp_path, mapped):
    path = tmp_path / "x"
    write_tensors(path, "thing", {"a": torch.randn(3), "β": torch.tensor([True])}, {"tasks": ["x", "y"]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8) if place % 8 == 0 else [place % 8]:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match="x"):
                read_tensors(path, "thing", mapped)


@pytest.mark.parametrize("mapped", [False, True])
def test_no_length_but_its_own_is_accepted(tmp_path, mapped):
    path = tmp_path / "x"
    write_tensors(path, "thing", {"a": torch.randn(3)}, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="x"):
            read_tensors(path, "thing", mapped)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="its index tells of"):
        read_tensors(path, "thing", mapped)


def index_file(path, index: str, data: bytes) -> None:
    path.write_bytes(len(index).to_bytes(8, "little") + index.encode() + data)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ('"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}', "size of its shape"),
        ('"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}', "size of its shape"),
        ('"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}', "do not follow"),
        ('"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}', "no 'F33'"),
        ('"a": {"dtype": "F32", "shape": [1]}', "no 'data_offsets'"),
        ('"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}', "cannot be read"),
        ('"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": 3', "cannot be read"),
        (
            '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
            '"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}',
            "do not follow",
        ),
        ('"a": ' + "[" * 100_000, "cannot be read"),
    ],
)
def test_an_index_that_cannot_be(tmp_path, entries, says):
    index_file(tmp_path / "x", '{"__metadata__": {"tlxml_fast": "thing"}, ' + entries + "}", b"\0" * 4)
    with pytest.raises(CheckpointError, match=says):
        read_tensors(tmp_path / "x", "thing")


def test_a_new_file_has_the_permissions_of_any(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "x", "thing", {}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_mapped_tensors_are_aligned(tmp_path):
    odd = {"a": torch.ones(1, dtype=torch.bool), "b": torch.ones(3), "c": torch.ones(2).double()}
    write_tensors(tmp_path / "x", "thing", odd, {})
    mapped, _ = read_tensors(tmp_path / "x", "thing", mapped=True)
    assert all(t.data_ptr() % t.itemsize == 0 for t in mapped.values())
