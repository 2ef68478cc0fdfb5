"""What there is of a result that is not finished: kept now and then, so that a run that was stopped goes on from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..distributed import World
from ..kept import Checkpoints, Sum, Tensors, digest, hashed
from ..linearize.buckets import Buckets
from ..linearize.shards import Shards
from ..progress import Advance
from .store import Store

# So much work is lost at most, and more only where keeping it would take more than this share of the time.
SECONDS, SHARE = 30.0, 0.05
# Between the name of a result and that of what there is of it; and what no result is made of, but was asked for.
OF, ASKED = "--", "asked"


class Clock:
    """Says when it is time to keep what there is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SECONDS

    @property
    def due(self) -> bool:
        """Whether it is."""
        return time.monotonic() >= self._next

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """While it is kept."""
        start = time.monotonic()
        yield
        end = time.monotonic()
        self._next = end + max(SECONDS, (end - start) / SHARE) if SECONDS else end


class Unfinished:
    """Sums and iterations under way. Their files are named by the result that they are of, and go when it is kept.

    Those of what is asked for and not kept, such as `TaskInfluence.solve`, go when it has been given. A sum is of the
    shards of one process, which keeps its own; an iteration is the same in all, and the leading one keeps it for all.
    """

    def __init__(self, store: Store, world: World, key: Mapping[str, Any]):
        self.store, self.world, self.key = store, world, key
        self.sums, self.states = Clock(), Clock()
        self._of, self._given = ASKED, set[str]()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What is begun inside belongs to a result of this name."""
        before, self._of = self._of, name
        try:
            yield
        finally:
            self._of = before

    def forget(self, name: str) -> None:
        """A result is kept: what there was of it goes."""
        if self.world.leads:
            self.store.remove_unfinished(lambda held: held.startswith(name + OF))

    def forget_what_was_asked(self) -> None:
        """It has been given: what this process kept of it goes."""
        self.store.remove_unfinished(self._given.__contains__)

    def adding(self, sum_: Sum, shards: Shards, advance: Advance) -> Iterator[Buckets]:
        """As `Kept.adding`; from where the same sum of this process was left."""
        name = self._name(f"sum-{self.world.rank}", mine=True)
        key = {**self.key, **sum_.depends, "given": hashed(*sum_.given), "rank": self.world.rank}
        found, done = self.store.read_unfinished(name, key), 0
        if found is not None:
            sum_.total.copy_(found[0].pop("total"))
            done = found[1]["shards"]
            advance(sum(len(shards.positions(i)) for i in shards.mine[:done]), known=True)
        for i in shards.mine[done:]:
            yield shards.buckets(i)
            done += 1
            if self.sums.due:
                with self.sums.keeping():
                    self.store.write_unfinished(name, key, {"total": sum_.total.cpu()}, {"shards": done})

    def checkpoints(self, name: str, depends: Mapping[str, Any], given: tuple[Tensor, ...]) -> Checkpoints:
        """As `Kept.checkpoints`."""
        key = {**self.key, **depends, "given": hashed(*given)}
        return _Stored(self, self._name(f"{name}-{digest(key)}", mine=self.world.leads), key)

    def _name(self, what: str, mine: bool) -> str:
        name = f"{self._of}{OF}{what}"
        if mine and self._of == ASKED:
            self._given.add(name)
        return name


class _Stored(Checkpoints):
    """In a file that each state takes from the one before."""

    def __init__(self, unfinished: Unfinished, name: str, key: Mapping[str, Any]):
        self.unfinished, self.name, self.key = unfinished, name, key

    def latest(self) -> Tensors | None:
        """What the leading process finds, for all."""
        world = self.unfinished.world
        found = self.unfinished.store.read_unfinished(self.name, self.key) if world.leads else None
        [there] = world.items([found is not None] if world.leads else [])
        if not there:
            return None
        return world.shared(None if found is None else found[0])

    def offer(self, state: Callable[[], Tensors]) -> None:
        """Written by the leading process, when it is time."""
        clock = self.unfinished.states
        if self.unfinished.world.leads and clock.due:
            with clock.keeping():
                tensors = {name: t.cpu() for name, t in state().items()}
                self.unfinished.store.write_unfinished(self.name, self.key, tensors)
