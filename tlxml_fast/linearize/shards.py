"""Tasks in shards: fixed runs of consecutive tasks, each linearized when it is its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from weakref import ref

from .. import memory
from ..distributed import World
from ..learners import Learner
from ..task import Task, TaskSet
from .base import Linearization
from .buckets import Buckets

# What is computed of a shard at a time, and stored as one file, takes about so much; at most so many tasks.
SHARD_BYTES, MOST_TASKS = 64 << 20, 256
# Of the memory there is, what linearized tasks may take to be there for the next pass.
KEPT = 0.25


def held(tasks: TaskSet, world: World) -> TaskSet:
    """The tasks, made once where memory holds them, else made anew whenever they are asked for."""
    if world.size > 1 or len(tasks) * _bytes(tasks[0]) > KEPT * memory.available():
        return tasks
    return TaskSet(tasks)


def shard_size(tasks: int, bytes_a_task: int, world: World) -> int:
    """Tasks a shard: few enough for memory and, of several processes, for each to have some.

    One process leaves room for tasks that a store is given later.
    """
    room = memory.share(1 / 32, SHARD_BYTES) // max(1, bytes_a_task)
    each = MOST_TASKS if world.size == 1 else -(-tasks // world.size)
    return max(1, min(MOST_TASKS, room, each))


@dataclass
class Shards:
    """M tasks, of which this process works on its share, shard by shard in order.

    Sums over tasks run over shards in index order, and inside a shard shape by shape: they do not depend on threads.
    Tasks are made and checked when their shard is first linearized; those that memory holds are checked at once, before
    any long work, and kept for further passes.
    """

    learner: Learner
    tasks: TaskSet
    linearize: Callable[[Learner, TaskSet], Linearization]
    size: int
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self._kept: dict[int, Buckets] = {}
        self._latest: Callable[[], Buckets | None] = lambda: (
            None
        )  # those that are not kept go when nobody needs them
        self.room = int(KEPT * memory.available())
        self.first = self.buckets(self.mine[0] if self.mine else 0).linearizations[0]
        """A linearization like any other: ω, q, the dtype and the backend are those of all."""
        for i in self.mine:
            self.buckets(i)
            if i not in self._kept:
                break

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def count(self) -> int:
        """How many shards there are, all processes' together."""
        return -(-len(self.tasks) // self.size)

    @property
    def mine(self) -> range:
        """The shards of this process."""
        return self.world.share(self.count)

    @property
    def my_tasks(self) -> int:
        """How many tasks these have."""
        return sum(len(self.positions(i)) for i in self.mine)

    def positions(self, i: int) -> range:
        """Where the tasks of shard i stand."""
        return range(i * self.size, min(len(self.tasks), (i + 1) * self.size))

    def buckets(self, i: int) -> Buckets:
        """Shard i, linearized; the one asked for before gives up what it holds for a next call."""
        made = self._kept.get(i)
        latest = self._latest()
        if latest is not None and latest is not made:
            for lin in latest.linearizations:
                lin.release()
        if made is None:
            made = self._made(i)
        self._latest = ref(made)
        return made

    def _made(self, i: int) -> Buckets:
        where = self.positions(i)
        made = Buckets(self.learner, self.tasks[where.start : where.stop], self.linearize)
        size = sum(_bytes(task) for task in made.tasks)
        if size <= self.room:
            self.room -= size
            self._kept[i] = made
        return made

    def __iter__(self) -> Iterator[Buckets]:
        """This process's shards, linearized one after another."""
        return (self.buckets(i) for i in self.mine)

    def linearizations(self) -> Iterator[Linearization]:
        """Those of this process's shards, in order."""
        return (lin for buckets in self for lin in buckets.linearizations)

    def __getitem__(self, position: int) -> Task:
        """One task, made anew where its shard is not kept."""
        i, within = divmod(position, self.size)
        return self._kept[i].tasks[within] if i in self._kept else self.tasks[position]


def _bytes(task: Task) -> int:
    """What a linearized task holds: its images, and a copy of them in the precision computed in."""
    return 2 * (task.support_x.nbytes + task.query_x.nbytes)
