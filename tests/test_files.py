"""Files are whole or not there."""

import pytest
import torch

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
