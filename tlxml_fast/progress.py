"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 30.0

Advance = Callable[..., None]


@contextmanager
def progress_bar(description: str, total: int, enabled: bool = True) -> Iterator[Advance]:
    """Yields `advance(steps=1, note="")`. Draws on standard error; nothing at all unless enabled."""
    if not enabled:
        yield lambda steps=1, note="": None
        return
    console = Console(stderr=True)
    reporter = _on_terminal if console.is_terminal else _in_log
    with reporter(console, description, total) as advance:
        yield advance


@contextmanager
def _on_terminal(console: Console, description: str, total: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        yield advance


@contextmanager
def _in_log(console: Console, description: str, total: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    done, said = 0, ""

    def advance(steps: int = 1, note: str | None = None) -> None:
        nonlocal done, last, said
        done, said = done + steps, said if note is None else note
        now = time.monotonic()
        if done >= total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            console.print(
                f"{description}: {done}/{total} after {now - start:.0f} s  {said}".rstrip(), highlight=False
            )

    yield advance
