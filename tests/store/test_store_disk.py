"""Disks that are full or cannot be written, in earnest; failures that need none are in test_store_crashes.py."""

import os
import resource
import subprocess

import pytest
import torch
from crash import tree
from small_run import open_store, small_run

from tlxml_fast.errors import StoreError
from tlxml_fast.store import verify

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk):
    with open_store(small_disk / "store") as store:
        store.write("g", 0, {"x": torch.ones(4, 8000)})
        before = tree(small_disk)
        with pytest.raises(
            StoreError,
            match=r"00000001\.safetensors cannot be written: no space left on device; what was stored",
        ):
            store.write("g", 1, {"x": torch.ones(4, 8000)})
        assert tree(small_disk) == before
        store.write("g", 1, {"x": torch.ones(4, 100)})
    assert verify(small_disk / "store").findings[0].what == "missing"


def test_a_disk_that_turns_read_only(small_disk):
    small_run(small_disk / "store", 6)
    before = tree(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="store cannot be written: read-only file system"):
        small_run(small_disk / "store")
    assert verify(small_disk / "store").ok
    assert tree(small_disk) == before


def test_a_limit_on_the_size_of_files(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_store(tmp_path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(StoreError, match="cannot be written: file too large"):
                store.write("g", 0, {"x": torch.ones(4, 8000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert store.read("g", 0) is None
        assert not list(tmp_path.rglob("*.part"))


@not_as_root
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_directory_of_somebody_else(tmp_path, mode):
    directory = tmp_path / "theirs"
    directory.mkdir()
    directory.chmod(mode)
    try:
        with pytest.raises(StoreError, match=r"theirs cannot be .*: permission denied"):
            open_store(directory)
    finally:
        directory.chmod(0o700)


@not_as_root
def test_a_shard_of_somebody_else(tmp_path):
    small_run(tmp_path)
    (tmp_path / "shards/gradients/00000000.safetensors").chmod(0)
    with pytest.raises(StoreError, match=r"00000000\.safetensors cannot be read: permission denied$"):
        small_run(tmp_path)
