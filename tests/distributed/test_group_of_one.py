"""A job of one process sends to itself what several send to each other; on a CUDA device, by nccl."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from job import INVERSES, agree, run

import tlxml_fast as tlx
from tlxml_fast.distributed import World, joined, local_device
from tlxml_fast.runs import open_device

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ONLY = {
    "RANK": 0,
    "WORLD_SIZE": 1,
    "LOCAL_RANK": 0,
    "LOCAL_WORLD_SIZE": 1,
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": 0,
}


@pytest.fixture
def launched(monkeypatch):
    """Sets what torchrun tells a process; at first what it tells the only one."""

    def tell(**told) -> None:
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))

    tell(**ONLY)
    return tell


@pytest.fixture(params=["gloo", pytest.param("nccl", marks=needs_cuda)])
def world(request):
    """A group of a user's own making, with a single backend."""
    dist.init_process_group(request.param, store=dist.HashStore(), rank=0, world_size=1)
    yield World.current()
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("device", "kind"),
    [("cpu", kind) for kind in INVERSES]
    + [pytest.param("cuda", kind, marks=needs_cuda) for kind in ("woodbury", "cg")],
)
def test_it_finds_what_is_found_without_a_group(device, kind, launched, tmp_path):
    alone = run(kind, device=device)
    with joined(device) as world:
        assert (world.rank, world.size) == (0, 1)
        assert {"cpu", device} <= set(world.carries)
        found = run(kind, device=device, store=tmp_path)
    assert not dist.is_initialized()
    agree(kind, found.values, found.info.get("meta"), alone)


def test_what_lies_on_the_cpu_is_sent_by_any_backend(world):
    x = torch.arange(6.0, dtype=torch.bfloat16).view(2, 3)
    assert world.items(["é", {"n": None}]) == ["é", {"n": None}]
    assert world.items([]) == []
    for got in (
        world.shared({"x": x})["x"],
        world.cat(x),
        world.sum(x.clone()),
        world.columns(x, [slice(0, 3)]),
    ):
        assert torch.equal(got, x)  # which refuses one on another device
    assert world.columns(x, [slice(1, 1)]).shape == (2, 0)  # of the last columns, some processes have none
    world.barrier()


def test_without_a_group_nothing_is_sent():
    with joined() as world:
        assert world == World() == World.current()


def test_a_cuda_job_sends_names_by_gloo_and_tensors_by_nccl(launched, monkeypatch):
    """Each process by the device of its number, which is the current one before the group is made."""
    calls, init = [], dist.init_process_group

    def gloo(backend, device_id, **given):
        calls.append((backend, device_id))
        init("gloo", **given)

    monkeypatch.setattr(dist, "init_process_group", gloo)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    launched(LOCAL_RANK=3)
    with joined("cuda"):
        pass
    device = torch.device("cuda", 3)
    assert calls == [device, ("cpu:gloo,cuda:nccl", device)]


def test_the_device_of_a_process(launched, monkeypatch):
    launched(LOCAL_RANK=3, LOCAL_WORLD_SIZE=4, WORLD_SIZE=8)
    assert [local_device(name) for name in ("cpu", "cuda")] == ["cpu", "cuda:3"]
    with pytest.raises(
        tlx.BackendError, match="device 'cuda:1' is a single one for 4 processes on this machine"
    ):
        open_device("cuda:1")
    launched(LOCAL_WORLD_SIZE=1)
    assert local_device("cuda:1") == "cuda:1"
    monkeypatch.delenv("WORLD_SIZE")
    assert [local_device(name) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
