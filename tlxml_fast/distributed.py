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

from .errors import TlxError


@dataclass(frozen=True)
class World:
    """This process among the `size` of its job; one of one unless torch.distributed is set up."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The process group that is set up, if there is one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process draws the progress bar and writes what all have made."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The items of this process: consecutive ones, as many as any other's or one less."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """Σ over processes, in place. In one order, so that it is the same every time for a number of processes."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def cat(self, x: Tensor) -> Tensor:
        """The processes' tensors [m_rank, …], joined in the order of ranks: [Σ m, …]."""
        if self.size == 1:
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
        if self.size == 1:
            return x[:, mine[0]]
        lengths = [int(n) for n in self._equal(torch.tensor([len(x)], device=x.device))]
        width = mine[self.rank].stop - mine[self.rank].start
        sent = [x[:, columns].reshape(-1) for columns in mine]
        received = x.new_empty(sum(lengths) * width)
        dist.all_to_all_single(
            received, torch.cat(sent), [n * width for n in lengths], [part.numel() for part in sent]
        )
        return received.view(-1, width)

    def items(self, items: list[Any]) -> list[Any]:
        """The processes' lists of JSON values, joined in the order of ranks."""
        if self.size == 1:
            return items
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        joined = self.cat(torch.frombuffer(bytearray(lines), dtype=torch.uint8) if lines else _NOTHING)
        return [json.loads(line) for line in bytes(joined.numpy()).splitlines()]

    def shared(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors that the leading process has, for all; None from the others."""
        if self.size == 1:
            return tensors
        mine = [[name, str(t.dtype), list(t.shape)] for name, t in tensors.items()] if self.leads else []
        made = {}
        for name, dtype, shape in self.items(mine):
            dtype = getattr(torch, dtype.removeprefix("torch."))
            made[name] = tensors[name].contiguous() if self.leads else torch.empty(shape, dtype=dtype)
            dist.broadcast(made[name], 0)
        return made

    def barrier(self) -> None:
        """Wait until all have come here."""
        if self.size > 1:
            dist.barrier()

    def _equal(self, x: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x)
        return parts


_NOTHING = torch.empty(0, dtype=torch.uint8)


@contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """Join the job that torchrun started this process for, if it did: gloo on the CPU, nccl on CUDA devices."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if not dist.is_available():
        raise TlxError("this torch has no torch.distributed; run without torchrun")
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # one machine: torchrun's store outlives its workers, and would tell restarted ones where killed ones listened
        store, rank, size = next(dist.rendezvous("env://"))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    else:
        dist.init_process_group(backend)
    try:
        yield World.current()
        dist.barrier()  # none leaves while another still needs it
    finally:
        dist.destroy_process_group()
        gc.collect()  # gloo's threads, if they are left to the interpreter's end, abort the process
