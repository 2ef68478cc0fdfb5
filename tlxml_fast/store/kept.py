"""What a run computes once, kept in a store for the next run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..distributed import World
from ..errors import CurvatureError, StoreError
from ..kept import Checkpoints, Compute, Kept, Result, Sum, Tensors
from ..linearize.buckets import Buckets
from ..linearize.shards import Shards
from ..memory import as_on_device, in_units, limit, limited
from ..parallel import torch_threads
from ..progress import Advance
from ..timing import repeatable
from .store import Store
from .unfinished import Unfinished


class InStore(Kept):
    """Results of shards and of all tasks, read where they are there, else computed and written.

    What there is of a result of all tasks is kept while it is made (`Unfinished`), and goes when that is there.
    Shards are read by the process they belong to; results of all tasks by the one that leads, for all. What the store's
    first run chose is followed while it is open; reading needs no lock, and goes on when it is closed.
    """

    on_disk = True

    def __init__(self, store: Callable[[], Store], world: World):
        self._open, self.world = store, world

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Under the store's lock, with its choices."""
        with self._open() as self.store, repeatable():
            self.shard_size, chosen = self.store.shard_size, self.store.choices
            _refuse_less(limit(), chosen["memory"], self.store.root)
            key = {"tasks": list(self.store.tasks), "processes": self.world.size}
            self.key, self.unfinished = key, Unfinished(self.store, self.world, key)
            free = chosen["memory free on the device"]
            with limited(chosen["memory"]), as_on_device(free), torch_threads(chosen["threads"]):
                yield
                self.unfinished.forget_what_was_asked()

    def shard(self, kind: str, shards: Shards, i: int, compute: Compute) -> Tensors:
        """What `compute` makes of shard i, mapped from its file; only tasks that are not in it are computed."""
        found = self.store.read(kind, i, mapped=True)
        where = shards.positions(i)
        self.found = found is not None and found.n == len(where)
        if not self.found:
            if found is None:
                made = compute(shards.buckets(i))
            else:
                new = shards.tasks[where.start + found.n : where.stop]
                made = _joined(found, compute(Buckets(shards.learner, new, shards.linearize)))
            self.store.write(kind, i, {name: t.cpu() for name, t in made.items()})
            found = self.store.read(kind, i, mapped=True)
        return {name: t.to(shards.first.device) for name, t in found.items()}

    def whole(self, name: str, depends: Mapping[str, Any], compute: Callable[[], Result]) -> Result:
        """What `compute` makes of all tasks of this run."""
        key = {**self.key, **depends}
        found = self._read(name, key)
        if found is None:
            try:
                with self.unfinished.of(name):
                    tensors, header = compute()
            except CurvatureError:  # the same run would come to it again
                self.unfinished.forget(name)
                raise
            if self.world.leads:
                self.store.write_whole(name, key, {name: t.cpu() for name, t in tensors.items()}, header)
            # as the next run has it: how a matrix lies in memory decides the last bits of what is made of it
            found = self._read(name, key)
        if self.store.is_open:
            self.unfinished.forget(name)
        return found

    def adding(self, sum_: Sum, shards: Shards, advance: Advance) -> Iterator[Buckets]:
        """From where it was left, while the store is open."""
        return (self.unfinished if self.store.is_open else super()).adding(sum_, shards, advance)

    def checkpoints(self, name: str, depends: Mapping[str, Any], *given: Tensor) -> Checkpoints:
        """In the store, while it is open."""
        if self.store.is_open:
            return self.unfinished.checkpoints(name, depends, given)
        return super().checkpoints(name, depends, *given)

    def _read(self, name: str, key: Mapping[str, Any]) -> Result | None:
        """What the leading process finds, for all."""
        found = self.store.read_whole(name, key) if self.world.leads else None
        [header] = self.world.items([None if found is None else found[1]] if self.world.leads else [])
        return None if header is None else (self.world.shared(None if found is None else found[0]), header)


def _refuse_less(own: int | None, chosen: int | None, root: Path) -> None:
    """Raise StoreError where a run may have less memory than the one that chose the chunks of its store."""
    if own is not None and (chosen is None or own < chosen):
        had = "no limit on memory" if chosen is None else f"memory {in_units(chosen)}"
        raise StoreError(
            f"{root} was made with {had}, which chose its chunks, and this run is allowed {in_units(own)}: "
            "allow as much, or use another store"
        )


def _joined(old: Mapping[str, Tensor], new: Tensors) -> Tensors:
    """The rows of old tasks and of new ones; padded as each was, to the longer of both."""
    return {name: torch.cat(_as_long(old[name].to(rows.device), rows)) for name, rows in new.items()}


def _as_long(a: Tensor, b: Tensor) -> list[Tensor]:
    if a.ndim == 1 or a.shape[1] == b.shape[1]:
        return [a, b]
    length = max(a.shape[1], b.shape[1])
    # what a shard pads with: nothing for rows, which change no sum, and NaN for confidences
    value = 0.0 if a.ndim > 2 else float("nan")
    return [pad(t, (0, 0) * (t.ndim - 2) + (0, length - t.shape[1]), value=value) for t in (a, b)]
