"""The one way the package times a choice it has to make, and where it must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_repeatable: ContextVar[bool] = ContextVar("repeatable", default=False)


def seconds(run: Callable[[], object]) -> float:
    """How long `run` takes the second time; the first chooses how to run, and warms up."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def repeatable() -> Iterator[None]:
    """No choice inside may hang on the clock: another run would make another, and differ in the last digits."""
    token = _repeatable.set(True)
    try:
        yield
    finally:
        _repeatable.reset(token)


def by_the_clock() -> bool:
    """Whether choices may be timed here."""
    return not _repeatable.get()
