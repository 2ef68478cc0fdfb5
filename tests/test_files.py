"""Files are whole or not there."""

import pytest
import torch
from safetensors.torch import save_file

from tlxml_fast import CheckpointError
from tlxml_fast.files import read_json, read_tensors, replacing, write_json, write_tensors


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("before")

    def interrupted() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    assert path.read_text() == "before"


def test_tensors_and_header_come_back(tmp_path):
    values = torch.randn(3, 4, dtype=torch.float64).mT  # not contiguous
    write_tensors(tmp_path / "x", "thing", {"values": values}, {"name": "α", "list": [1, None]})
    tensors, header = read_tensors(tmp_path / "x", "thing")
    assert torch.equal(tensors["values"], values)
    assert header == {"name": "α", "list": [1, None]}


def test_another_kind_is_refused(tmp_path):
    write_tensors(tmp_path / "x", "scores", {}, {})
    with pytest.raises(CheckpointError, match="not a tlxml_fast checkpoint"):
        read_tensors(tmp_path / "x", "checkpoint")


@pytest.mark.parametrize("damage", [b"", b"\x80\x04]", b"x" * 100])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
        read_tensors(path, "checkpoint")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1.5]})
    assert read_json(tmp_path / "a.json") == {"é": [1.5]}


def test_tensors_that_share_memory_are_written_each(tmp_path):
    a = torch.randn(4, 3)
    write_tensors(
        tmp_path / "x", "thing", {"a": a, "again": a, "part": a[1:], "minus": torch._neg_view(a)}, {}
    )
    tensors, _ = read_tensors(tmp_path / "x", "thing")
    for name, want in {"a": a, "again": a, "part": a[1:], "minus": -a}.items():
        assert torch.equal(tensors[name], want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_dtype_and_shape_has_a_checksum(tmp_path, dtype, shape):
    write_tensors(tmp_path / "x", "thing", {"a": torch.ones(shape, dtype=dtype)}, {})
    assert torch.equal(read_tensors(tmp_path / "x", "thing")[0]["a"], torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize("old_new", [(b"\x00\x00\x80\x3f", b"\x00\x00\x80\x40"), (b"note", b"nota")])
def test_a_changed_byte_is_noticed(tmp_path, old_new):
    path = tmp_path / "x"
    write_tensors(path, "thing", {"a": torch.ones(1)}, {"note": 1})
    assert path.read_bytes().count(old_new[0]) == 1
    path.write_bytes(path.read_bytes().replace(*old_new))
    with pytest.raises(CheckpointError, match="x is damaged: its content does not match its checksum"):
        read_tensors(path, "thing")


def test_a_file_without_a_checksum_is_damaged(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x", {"tlxml_fast": "thing", "header": "{}"})
    with pytest.raises(CheckpointError, match="is damaged"):
        read_tensors(tmp_path / "x", "thing")


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_is_called_one(tmp_path, as_zip):
    torch.save({"a": torch.ones(1)}, tmp_path / "x", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(
        CheckpointError, match=r"x is a pickle, as torch\.save writes, not a tlxml_fast thing file"
    ):
        read_tensors(tmp_path / "x", "thing")


def test_a_damaged_file_is_not_taken_for_a_pickle(tmp_path):
    """An index of 640 bytes begins as a pickle of protocol 2 does: 80 02."""
    write_tensors(tmp_path / "x", "thing", {"a": torch.ones(1)}, {"note": ""})
    room = 640 - int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    write_tensors(tmp_path / "x", "thing", {"a": torch.ones(1)}, {"note": "." * room})
    whole = (tmp_path / "x").read_bytes()
    assert whole[:2] == b"\x80\x02"
    (tmp_path / "x").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="x cannot be read: it has"):
        read_tensors(tmp_path / "x", "thing")
