"""Tasks side by side: one thread a task, instead of many threads an operation.

The operations of a task are small: sharing one among threads costs more than it gains (twice the time on two
idle cores, ten times on busy ones), while whole tasks need not wait for each other. A task's result does not
depend on which thread made it, and results come in the order of the tasks, so sums over them are the same for
any number of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

# torch's forward mode has one level for the whole process: whoever uses it, from whichever thread, holds this.
FORWARD_MODE = threading.RLock()

Item = TypeVar("Item")
Result = TypeVar("Result")
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def task_threads(parallel: bool = True) -> Iterator[Map]:
    """Yields `map(function, items)`: results in order, on as many threads as torch has, one torch thread each.

    With `parallel=False` (a device that is parallel itself, a function that is not thread-safe) one after
    another. At most two results a thread wait to be taken, however many items there are.
    """
    threads = torch.get_num_threads() if parallel else 1
    if threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield in_order
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many torch threads, for as long as it lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
