"""The processes of one job, each with its share of the work: torch.distributed, started by torchrun.

    torchrun --nproc-per-node N -m tlxml_fast influence …

Work is shared in whole shards of consecutive tasks, and results are joined in the order of the ranks: what a job
computes depends on the number of its processes to rounding only, and not at all on which of them is faster.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import BackendError, TlxError


@dataclass(frozen=True)
class World:
    """This process among the `size` of its job; one of one unless torch.distributed is set up.

    carries   the kinds of devices that the group has a backend for; none without a group

    Names, counts and what a store has lie on the CPU, and the rest on the learner's device. What the group does not
    carry goes by a copy on a device that it does, the current one of its kind. A group of one sends to itself.
    """

    rank: int = 0
    size: int = 1
    carries: tuple[str, ...] = ()

    @classmethod
    def current(cls) -> World:
        """The process group that is set up, if there is one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        kinds = tuple(pair.partition(":")[0] for pair in dist.get_backend_config().split(","))
        return cls(dist.get_rank(), dist.get_world_size(), kinds)

    @property
    def leads(self) -> bool:
        """Whether this process draws the progress bar and writes what all have made."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The items of this process: consecutive ones, as many as any other's or one less."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """Σ over processes, in place. In one order, so that it is the same every time for a number of processes."""
        if self.carries:
            dist.all_reduce(sent := self._sendable(x))
            x.copy_(sent)
        return x

    def cat(self, x: Tensor) -> Tensor:
        """The processes' tensors [m_rank, …], joined in the order of ranks: [Σ m, …]."""
        if not self.carries:
            return x
        lengths = [int(n) for n in self._equal(torch.tensor([len(x)], device=x.device))]
        # as bytes: not every backend knows every dtype
        row = x[:1].numel() * x.element_size() if len(x) else 0
        row = max(int(n) for n in self._equal(torch.tensor([row], device=x.device)))
        mine = x.new_zeros(max(lengths) * row, dtype=torch.uint8)
        mine[: len(x) * row] = x.contiguous().reshape(-1).view(torch.uint8)
        parts = [part[: n * row] for part, n in zip(self._equal(mine), lengths, strict=True)]
        return torch.cat(parts).view(x.dtype).view(sum(lengths), *x.shape[1:])

    def columns(self, x: Tensor, mine: Sequence[slice]) -> Tensor:
        """From this process's rows of all columns to all rows of its columns: [m_rank, c] → [Σ m, c_rank].

        mine   each process's columns
        """
        if not self.carries:
            return x[:, mine[0]]
        lengths = [int(n) for n in self._equal(torch.tensor([len(x)], device=x.device))]
        width = mine[self.rank].stop - mine[self.rank].start
        parts = [x[:, columns].reshape(-1) for columns in mine]
        sent = self._sendable(torch.cat(parts))
        received = sent.new_empty(sum(lengths) * width)
        dist.all_to_all_single(received, sent, [n * width for n in lengths], [part.numel() for part in parts])
        return received.view(sum(lengths), width).to(x.device)

    def items(self, items: list[Any]) -> list[Any]:
        """The processes' lists of JSON values, joined in the order of ranks."""
        if not self.carries:
            return items
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        joined = self.cat(torch.frombuffer(bytearray(lines), dtype=torch.uint8) if lines else _NOTHING)
        return [json.loads(line) for line in bytes(joined.numpy()).splitlines()]

    def shared(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors that the leading process has on the CPU, for all; None from the others."""
        if not self.carries:
            return tensors
        listed = [[name, str(t.dtype), list(t.shape)] for name, t in tensors.items()] if self.leads else []
        made = {}
        for name, dtype, shape in self.items(listed):
            dtype = getattr(torch, dtype.removeprefix("torch."))
            mine = tensors[name].contiguous() if self.leads else torch.empty(shape, dtype=dtype)
            dist.broadcast(sent := self._sendable(mine), 0)
            made[name] = sent.cpu()
        return made

    def barrier(self) -> None:
        """Wait until all have come here."""
        if self.carries:
            dist.barrier()

    def _equal(self, x: Tensor) -> list[Tensor]:
        sent = self._sendable(x)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return [part.to(x.device) for part in parts]

    def _sendable(self, x: Tensor) -> Tensor:
        """x, or a copy of it on a device that the group carries."""
        return x if x.device.type in self.carries else x.to(self.carries[0])


_NOTHING = torch.empty(0, dtype=torch.uint8)


def local_device(name: str) -> str:
    """Under torchrun, for "cuda" the device of this process's number on its machine; else what is named.

    Raises BackendError where one CUDA device is named for several processes, which nccl does not join.
    """
    if "WORLD_SIZE" not in os.environ or not name.startswith("cuda"):
        return name
    if name == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if (processes := int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) > 1:
        raise BackendError(
            f"device {name!r} is a single one for {processes} processes on this machine; name 'cuda', and each takes "
            "the one of its number"
        )
    return name


@contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """Join the job that torchrun started this process for, if it did: by gloo, and for CUDA devices by nccl as well.

    device   "cuda" for the device of this process's number on its machine, which becomes the current one
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:  # torchrun sets both
        yield World()
        return
    if not dist.is_available():
        raise TlxError("this torch has no torch.distributed; run without torchrun")
    where, group = torch.device(local_device(device)), {"backend": "gloo"}
    if where.type == "cuda":
        torch.cuda.set_device(where)
        group = {"backend": "cpu:gloo,cuda:nccl", "device_id": where}
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # one machine: torchrun's store outlives its workers, and would tell restarted ones where killed ones listened
        store, rank, size = next(dist.rendezvous("env://"))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        group |= {"store": dist.PrefixStore(f"attempt {attempt}", store), "rank": rank, "world_size": size}
    dist.init_process_group(**group)
    try:
        yield World.current()
        dist.barrier()  # none leaves while another still needs it
    finally:
        dist.destroy_process_group()
        gc.collect()  # gloo's threads, if they are left to the interpreter's end, abort the process
