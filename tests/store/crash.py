"""A run that fails at one of its writes, syncs and renames, in a process forked for it.

    operations = points(run)                          # what an undisturbed run does to the disk, in order
    outcome = run_with_failure_at(n, run, how="kill")  # it does the first n of them
    assert_every_point_recovers(run, tmp_path)        # for every n: fail, run again, compare all bytes

A run is a function without arguments (`assert_every_point_recovers`: of a directory) that writes through
`tlxml_fast.files.disk` alone. Forking spares the imports; as OpenMP's threads do not survive a fork, the runs
have one thread.

how    "kill": the process ends before operation n
       "torn": as "kill", but half of what was to be written is written
       "cut": as "kill", and files that were written and not synced are empty, as after a power cut
       "full": operation n and all later ones that need room raise ENOSPC
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tlxml_fast import TlxError
from tlxml_fast.files import disk

OPERATIONS = ("make_directory", "create", "write", "sync", "rename", "remove")
FINISHED, REFUSED, CRASHED, KILLED = 0, 3, 4, 77
BATCH = 16  # failed runs that one process finishes: a fork costs more than a small run


@dataclass(frozen=True)
class Outcome:
    """status     FINISHED, REFUSED (a TlxError), CRASHED (another exception) or KILLED
    operations what was done to the disk
    message    the error's
    """

    status: int
    operations: list[str]
    message: str


def points(run: Callable[[], object]) -> list[str]:
    """What an undisturbed run does to the disk, in order."""
    outcome = run_with_failure_at(None, run)
    assert outcome.status == FINISHED, outcome.message
    return outcome.operations


def run_with_failure_at(n: int | None, run: Callable[[], object], how: str = "kill") -> Outcome:
    """Do the first n operations of a run, in a forked process; all of them where n is None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_the_child(_Disk(n, how, writer), run)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        told = json.loads(pipe.read() or '[[], "the process told nothing"]')
    return Outcome(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *told)


def assert_every_point_recovers(
    run: Callable[[Path], object],
    tmp: Path,
    how: str = "kill",
    prepare: Callable[[Path], object] = lambda directory: None,
    which: Callable[[int], Iterable[int]] = range,
) -> int:
    """After a failure at each point, the same run finishes, and leaves every byte as an undisturbed run does.

    prepare   what is in the directory before
    which     of a number of points, those to try
    Returns how many were tried.
    """
    prepare(tmp / "undisturbed")
    operations = points(lambda: run(tmp / "undisturbed"))
    wanted, tried = tree(tmp / "undisturbed"), list(which(len(operations)))
    for start in range(0, len(tried), BATCH):
        failed = {tmp / f"{how}-{n}-{operations[n]}": n for n in tried[start : start + BATCH]}
        for directory, n in failed.items():
            prepare(directory)
            outcome = run_with_failure_at(n, lambda d=directory: run(d), how)
            assert outcome.status == (REFUSED if how == "full" else KILLED), f"{directory}: {outcome}"
            assert outcome.operations[:n] == operations[:n], f"{directory}: {outcome}"
        again = run_with_failure_at(None, lambda f=failed: [run(directory) for directory in f])
        assert again.status == FINISHED, f"one of {list(failed)}: {again.message}"
        for directory in failed:
            assert tree(directory) == wanted, f"after {directory}"
            shutil.rmtree(directory)
    return len(tried)


def tree(directory: Path) -> dict[str, bytes]:
    """Every file's bytes; a lock tells of its process, and is left out."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


class _Disk:
    """Stands for `disk` in the child: counts, and fails in its time."""

    def __init__(self, at: int | None, how: str, pipe: int):
        self.at, self.how, self.pipe = at, how, pipe
        self.done: list[str] = []
        self.unsynced: set[str] = set()

    def install(self) -> None:
        for name in OPERATIONS:
            setattr(disk, name, partial(self.do, name, getattr(disk, name)))

    def do(self, name: str, really: Callable[..., Any], *arguments: Any) -> Any:
        if (
            self.at is not None
            and len(self.done) >= self.at
            and not (self.how == "full" and name == "remove")
        ):
            self.fail(name, really, *arguments)
        self.done.append(name)
        if name == "write":
            self.unsynced.add(_path(arguments[0]))
        if name == "rename" and str(arguments[0]) in self.unsynced:
            self.unsynced.add(str(arguments[1]))
        if name == "sync":  # no need to wait for the disk: what a process wrote survives it
            self.unsynced.discard(_path(arguments[0]))
            return None
        return really(*arguments)

    def fail(self, name: str, really: Callable[..., Any], *arguments: Any) -> None:
        if self.how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.how == "torn" and name == "write":
            really(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
        if self.how == "cut":
            for path in self.unsynced:
                with suppress(FileNotFoundError):
                    os.truncate(path, 0)
        self.leave(KILLED)

    def leave(self, status: int, message: str = "") -> None:
        with suppress(BaseException), open(self.pipe, "w", encoding="utf-8") as pipe:
            json.dump([self.done, message], pipe)
        os._exit(status)


def _be_the_child(counting: _Disk, run: Callable[[], object]) -> None:
    """Never returns into the parent's program."""
    try:
        torch.set_num_threads(1)
        counting.install()
        run()
        counting.leave(FINISHED)
    except TlxError as error:
        counting.leave(REFUSED, str(error))
    except BaseException:
        counting.leave(CRASHED, traceback.format_exc())


def _path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
