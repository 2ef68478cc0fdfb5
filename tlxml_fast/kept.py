"""What is computed once: where it is kept for the next pass, or the next run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .linearize.buckets import Buckets
from .linearize.shards import Shards
from .progress import Advance

Tensors = dict[str, Tensor]
Compute = Callable[[Buckets], Tensors]
Result = tuple[Tensors, dict[str, Any]]


class Sum(NamedTuple):
    """A sum over shards: of what it is, JSON; what there is of it; and the tensors that a term hangs on besides."""

    depends: Mapping[str, Any]
    total: Tensor
    given: tuple[Tensor, ...] = ()


class Checkpoints:
    """Where an iteration leaves its state, to go on from in another run; this one forgets."""

    def latest(self) -> Tensors | None:
        """The last state that was kept of the same iteration, its tensors the caller's own."""
        return None

    def offer(self, state: Callable[[], Tensors]) -> None:
        """A state, made if it is time to keep one. The iteration goes on from it as it would have."""


class Kept:
    """Computes whenever it is asked; `store.InStore` keeps what it has computed on disk."""

    on_disk = False
    found = False
    """Whether the last shard that was asked for was there, all of it."""
    shard_size: int | None = None
    """Tasks in a shard, where that is decided already."""

    def opened(self) -> AbstractContextManager[None]:
        """While results are computed."""
        return nullcontext()

    def shard(self, kind: str, shards: Shards, i: int, compute: Compute) -> Tensors:
        """What `compute` makes of shard i: tensors with a row for each of its tasks."""
        return compute(shards.buckets(i))

    def whole(self, name: str, depends: Mapping[str, Any], compute: Callable[[], Result]) -> Result:
        """What `compute` makes of all tasks, with JSON, and of nothing else but what it `depends` on.

        All processes call it.
        """
        return compute()

    def adding(self, sum_: Sum, shards: Shards, advance: Advance) -> Iterator[Buckets]:
        """This process's shards, in order, each to be added to the total before the next is asked for.

        advance  told of tasks that are in a sum which was begun before
        """
        return iter(shards)

    def checkpoints(self, name: str, depends: Mapping[str, Any], *given: Tensor) -> Checkpoints:
        """Those of an iteration that hangs on what it `depends` on and on tensors given. All processes call it."""
        return Checkpoints()


class Results(Sequence[Tensors]):
    """What `compute` makes of each shard of this process: held once made, or mapped from disk whenever asked for."""

    def __init__(self, kept: Kept, kind: str, shards: Shards, compute: Compute):
        self.kept, self.kind, self.shards, self.compute = kept, kind, shards, compute
        self._held: dict[int, Tensors] = {}

    def __len__(self) -> int:
        return len(self.shards.mine)

    def __getitem__(self, n: int) -> Tensors:
        if not 0 <= n < len(self):
            raise IndexError(n)
        if n in self._held:
            return self._held[n]
        made = self.kept.shard(self.kind, self.shards, self.shards.mine[n], self.compute)
        if not self.kept.on_disk:
            self._held[n] = made
        return made


class Column(Sequence[Tensor]):
    """One tensor of each shard, its first `flat` dimensions joined."""

    def __init__(self, results: Results, name: str, flat: int = 1):
        self.results, self.name, self.flat = results, name, flat

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, n: int) -> Tensor:
        return self.results[n][self.name].flatten(0, self.flat - 1)


def digest(described: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of a JSON value: names what was made with these settings."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def hashed(*tensors: Tensor) -> str:
    """SHA-256 of the bytes of tensors, one after another."""
    made = hashlib.sha256()
    for x in tensors:
        made.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return made.hexdigest()
