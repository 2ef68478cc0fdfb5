"""The circumstances of a fit: its tasks in shards, its memory, its processes, and the store it goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .compression import Compression
from .curvature import Curvature
from .distributed import World
from .kept import Kept
from .learners import Learner
from .linearize import Linearization
from .linearize.roster import Roster
from .linearize.shards import MOST_TASKS, Shards, held, shard_size
from .memory import limited, require
from .store import InStore, Store
from .store.context import choices, context, possible, probe
from .task import TaskSet

Linearize = Callable[[Learner, TaskSet], Linearization]


@dataclass(frozen=True)
class Session:
    """Tasks as they are worked through, and where results are kept."""

    shards: Shards
    roster: Roster
    kept: Kept
    memory: int | None

    @contextmanager
    def active(self) -> Iterator[Session]:
        """Within its memory, and with its store open."""
        with limited(self.memory), self.kept.opened():
            yield self


@dataclass(frozen=True)
class Sessions:
    """How sessions are made: what of a `TaskInfluence` does not depend on the tasks."""

    learner: Learner
    linearize: Linearize
    curvature: Curvature
    compression: Compression | None
    by_rows: bool
    """Whether all tasks' rows of the curvature are needed."""
    memory: int | None = None
    store: str | os.PathLike[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON that gradients depend on, besides the learner."""

    @contextmanager
    def active(self, tasks: TaskSet, stored: bool = True) -> Iterator[Session]:
        """A session over tasks, which is active; with `stored`, on the store if there is one."""
        world = World.current()
        with limited(self.memory):
            tasks = held(tasks, world)
            roster = Roster(tasks, world)
            one = self.linearize(self.learner, tasks[:1])
            size, kept = shard_size(len(tasks), self._bytes_a_task(one), world), Kept()
            if self.store is not None and stored:
                tried = self.linearize(self.learner, TaskSet([probe(tasks[0])]))
                kept = InStore(partial(self._opened, roster, tried, size), world)
        with limited(self.memory), kept.opened():
            shards = Shards(self.learner, tasks, self.linearize, kept.shard_size or size, world)
            yield Session(shards, roster, kept, self.memory)

    def _opened(self, roster: Roster, tried: Linearization, size: int) -> Store:
        """The leading process opens first, and holds the lock for all."""
        world, axis = roster.world, roster.axis
        depends = {**context(self.learner, tried), **self.settings}
        given = (self.store, depends, axis.ids, choices(tried.device), possible(), size, axis.names)
        if world.leads:
            opened = Store.open(*given)
        world.barrier()
        return opened if world.leads else Store.open(*given, lock=False)

    def _bytes_a_task(self, one: Linearization) -> int:
        rows = self.curvature.row_count(one) if self.by_rows else 0
        if self.compression is not None:
            self.compression.check(one.q)
            kept = self.compression.dimension * self.compression.storage.itemsize
            require(kept * MOST_TASKS, f"a shard of gradients of {self.compression.dimension:,} numbers")
        return (1 + rows) * one.q * one.dtype.itemsize
