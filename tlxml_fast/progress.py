"""Progress of long work: a bar on a terminal, a line now and then in a log, and records in files that are asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_RECORDS = 1.0

Advance = Callable[..., None]


@contextmanager
def progress_bar(
    description: str, total: int, enabled: bool = True, one_of_many: bool = False
) -> Iterator[Advance]:
    """Yields `advance(steps=1, note="", known=False)`. Draws on standard error if enabled, and writes to open logs.

    known        the steps were there already, and say nothing of how fast new ones are made
    one_of_many  the next such phase takes this one's place: its bar goes, and lines come as if they were one phase
    """
    with ExitStack() as stack:
        listeners: list[Advance] = []
        if enabled:
            console = Console(stderr=True)
            if console.is_terminal:
                listeners.append(stack.enter_context(_on_terminal(console, description, total, one_of_many)))
            else:
                last = _last_line if one_of_many else None
                lines = _Lines(description, total, SECONDS_BETWEEN_LINES, last)
                lines.write = lambda state: console.print(state.line(), highlight=False)
                listeners.append(lines)
        for log in _logs.get():
            records = _Lines(
                description, total, SECONDS_BETWEEN_RECORDS, log.last_record if one_of_many else None
            )
            records.write = log.progress
            listeners.append(records)

        def advance(steps: int = 1, note: str | None = None, known: bool = False) -> None:
            for listener in listeners:
                listener(steps, note, known)

        yield advance


def say(line: str, enabled: bool = True, kind: str = "note", **record: Any) -> None:
    """One line on standard error if enabled, and in the logs that are open, where JSON has the record instead."""
    if enabled:
        Console(stderr=True, markup=False).print(line, highlight=False)
    for log in _logs.get():
        log.event(kind, line, **record)


# ---- logs ---------------------------------------------------------------------------------------------


@dataclass
class Last:
    """When phases of which there are many last said where they are; one that begins the first starts it."""

    time: float | None = None


_last_line = Last()


class Log:
    """A file that progress and events are appended to: lines to read, or JSON objects, one a line."""

    def __init__(self, file: TextIO, as_json: bool):
        self.file, self.as_json, self.last_record = file, as_json, Last()

    def progress(self, state: State) -> None:
        """How far a phase has come."""
        self.event("progress", state.line(), **state.record())

    def event(self, kind: str, line: str, **record: Any) -> None:
        """Something that happened: its line, or its record."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        text = (
            json.dumps({"time": now, "event": kind, **record}, ensure_ascii=False) if self.as_json else None
        )
        self.file.write((text or f"{now} {line}") + "\n")
        self.file.flush()


_logs: ContextVar[tuple[Log, ...]] = ContextVar("logs", default=())


@contextmanager
def logged(
    lines: str | os.PathLike[str] | None = None, records: str | os.PathLike[str] | None = None
) -> Iterator[Sequence[Log]]:
    """Inside, progress is appended to these files, as lines and as JSON."""
    with ExitStack() as stack:
        opened = []
        for path, as_json in ((lines, False), (records, True)):
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                opened.append(Log(stack.enter_context(open(path, "a", encoding="utf-8")), as_json))
        token = _logs.set((*_logs.get(), *opened))
        try:
            yield opened
        finally:
            _logs.reset(token)


# ---- listeners ----------------------------------------------------------------------------------------


@dataclass
class State:
    """How far a phase has come."""

    description: str
    total: int
    done: int
    seconds: float
    note: str
    known: int = 0

    @property
    def rate(self) -> float:
        """Steps a second, of those that were not there already."""
        return (self.done - self.known) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self) -> str:
        """In words."""
        left = "" if self.done >= self.total or self.left is None else f", {self.left:.0f} s left"
        text = f"{self.description}: {self.done}/{self.total} after {self.seconds:.0f} s ({self.rate:.3g}/s{left})"
        return f"{text}  {self.note}".rstrip()

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "phase": self.description,
            "done": self.done,
            "total": self.total,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.rate, 6),
            "seconds_left": None if self.left is None else round(self.left, 3),
            **({"note": self.note} if self.note else {}),
        }


class _Lines:
    """Says where a phase is every so often, and when it is done; one of many with the `last` of all only the former."""

    write: Callable[[State], None]

    def __init__(self, description: str, total: int, every: float, last: Last | None = None):
        self.start = time.monotonic()
        self.state, self.every = State(description, total, 0, 0.0, ""), every
        self.last, self.one_of_many = last or Last(), last is not None
        if self.last.time is None:
            self.last.time = self.start

    def __call__(self, steps: int, note: str | None, known: bool) -> None:
        state, now = self.state, time.monotonic()
        state.done, state.seconds = state.done + steps, now - self.start
        state.known += steps if known else 0
        state.note = state.note if note is None else note
        done = state.done >= state.total and not self.one_of_many
        if done or now - self.last.time >= self.every:
            self.last.time = now
            self.write(state)


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Bar) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


@contextmanager
def _on_terminal(console: Console, description: str, total: int, transient: bool) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=transient) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int, note: str | None, known: bool) -> None:
            if known:  # the rate is of what comes after
                bar.reset(task, completed=int(bar.tasks[0].completed) + steps)
                steps = 0
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        yield advance
