"""Named tensors of shards of tasks, and results of all of them, on a disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import StoreError
from ..files import disk, make_directories, read_tensors, understanding, write_tensors
from . import layout
from .checks import REMEDY, reading, shard_problem, whole_problem, writing
from .lock import acquire
from .manifest import Manifest, digest, plain
from .tasks import read_tasks, settle_tasks

SHARD_SIZE = 64


class Shard(dict[str, Tensor]):
    """The tensors, by name, of the first `n` tasks of a shard."""

    def __init__(self, tensors: Mapping[str, Tensor], n: int):
        super().__init__(tensors)
        self.n = n


class Store:
    """What a run over tasks has computed, kept in a directory; a context manager that holds its lock.

    Shard i is of tasks [i·size, (i+1)·size). A read of a mapped file takes memory only as tensors are touched, any
    other that of the tensors; a write takes none beyond the tensors given. Every byte is checked when it
    is first read, at the speed of SHA-256. Whatever cannot be used raises a StoreError that names it.

    choices      what the first run chose: to be followed
    tasks        the ids of this run's tasks
    shard_size   the store's
    """

    def __init__(self, root: Path, manifest: Manifest, tasks: Sequence[str], lock: int | None):
        self.root, self.tasks = root, tuple(tasks)
        self.choices, self.shard_size = manifest.choices, manifest.shard_size
        self._digest, self._lock, self._open = manifest.digest, lock, True
        self._verified: dict[Path, tuple[int, ...]] = {}

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        context: Mapping[str, Any],
        tasks: Sequence[str],
        choices: Mapping[str, Any] | None = None,
        possible: Mapping[str, Collection[Any]] | None = None,
        shard_size: int | None = None,
        names: Sequence[str] | None = None,
        lock: bool = True,
    ) -> Store:
        """Open a store, or make one where there is none.

        context      JSON on which every tensor depends; must agree with the store's
        tasks        ids, in order: those of the store, their beginning, or a continuation of them
        choices      JSON: what this run would choose. The store's own are followed where it has been made
        possible     by the name of a choice, the values that can be followed here; any value unless given
        shard_size   for a new store, 64 unless given; an old one keeps its own
        names        what errors call the tasks; their ids unless given
        lock         False in all but one of several processes of a run, which open a store after that one did

        Raises StoreError if the store is in use, damaged, no store, or made with something else: the first
        difference is named. What killed runs left half-written is removed.
        """
        root = Path(directory)
        new = Manifest(plain(context), plain(choices or {}), SHARD_SIZE if shard_size is None else shard_size)
        if new.shard_size < 1:
            raise StoreError(f"a shard has at least one task, not {new.shard_size}")
        _refuse_what_is_no_store(root)
        with writing(root):
            if lock:
                make_directories(root)
            descriptor = acquire(root) if lock else None
        try:
            manifest = Manifest.read(root)
            if manifest is None and not lock:
                raise StoreError(f"{root} is no store yet: the process that holds its lock opens it first")
            with writing(root):
                for part in layout.parts(root) if lock else []:
                    disk.remove(part)
                if manifest is None:
                    read_tasks(root, new.digest)  # a lost manifest is written again by nobody else's run
                    new.write(root)
                    manifest = new
            manifest.require_context(root, new.context)
            manifest.require_choices(root, new.choices, possible or {})
            settle_tasks(root, manifest.digest, tasks, names or tasks, write=lock)
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise
        return cls(root, manifest, tasks, descriptor)

    @property
    def is_open(self) -> bool:
        """Whether it can be written."""
        return self._open

    def close(self) -> None:
        """Let go of the lock. Mapped tensors stay valid, and what is stored may still be read."""
        if self._open and self._lock is not None:
            os.close(self._lock)
        self._open = False

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- shards -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many shards the tasks of this run fill."""
        return -(-len(self.tasks) // self.shard_size)

    def span(self, index: int) -> slice:
        """The tasks of a shard; the last shard may have fewer than `shard_size`."""
        if not 0 <= index < len(self):
            raise StoreError(f"there is no shard {index} of {len(self)}")
        start = index * self.shard_size
        return slice(start, min(start + self.shard_size, len(self.tasks)))

    def read(self, kind: str, index: int, mapped: bool = False) -> Shard | None:
        """The tensors of a shard, or None where it is not stored.

        They are of its first n tasks, n = len(ids) unless the shard was stored when there were fewer tasks: then
        the rest is to be computed and the shard written again. mapped: see `read_tensors`.
        """
        ids, path = self.tasks[self.span(index)], layout.shard_path(self.root, kind, index)
        found = self._read(path, "store shard", mapped)
        if found is None:
            return None
        tensors, header = found
        with reading(path), understanding(path):
            problem = shard_problem(header, kind, index, self._digest, ids)
            held, n = len(header["tasks"]), min(len(ids), len(header["tasks"]))
            rows = {name: _rows(len(t), header["counts"].get(name), held, n) for name, t in tensors.items()}
        _refuse(path, problem)
        return Shard({name: t[: rows[name]] for name, t in tensors.items()}, n)

    def write(
        self,
        kind: str,
        index: int,
        tensors: Mapping[str, Tensor],
        counts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Store the tensors of all tasks of a shard, in the place of what was there.

        tensors   the rows of each are those of the tasks, one after the other, equally many of each task
        counts    for tensors of which tasks have different numbers of rows: that number for every task
        """
        ids = self.tasks[self.span(index)]
        counts = {name: list(map(int, rows)) for name, rows in (counts or {}).items()}
        for name, t in tensors.items():
            rows = counts.get(name)
            fits = t.ndim and (
                len(t) % len(ids) == 0 if rows is None else (len(rows), sum(rows)) == (len(ids), len(t))
            )
            if not fits:
                raise StoreError(
                    f"{name!r} of shape {tuple(t.shape)} has no rows for each of the {len(ids)} tasks"
                )
        header = {"kind": kind, "index": index, "tasks": ids, "context": self._digest, "counts": counts}
        self._write(layout.shard_path(self.root, kind, index), "store shard", tensors, header)

    # ---- results of all tasks -----------------------------------------------------------------------

    def read_whole(
        self, name: str, key: Any, mapped: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the header stored under a name; None where there are none, or of another key.

        key   JSON: all that the result depends on beside the store's context, such as the ids of its tasks
        """
        return self._read_named(layout.whole_path(self.root, name), name, key, mapped)

    def write_whole(
        self, name: str, key: Any, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None
    ) -> None:
        """Store a result under its name, in the place of what was there. header: JSON that comes back with it."""
        self._write_named(layout.whole_path(self.root, name), name, key, tensors, header)

    # ---- results that are not finished --------------------------------------------------------------

    def read_unfinished(self, name: str, key: Any) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """As `read_whole`, of what a run had of a result when it was stopped."""
        return self._read_named(layout.unfinished_path(self.root, name), name, key, mapped=False)

    def write_unfinished(
        self, name: str, key: Any, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None
    ) -> None:
        """As `write_whole`, of what there is of a result."""
        self._write_named(layout.unfinished_path(self.root, name), name, key, tensors, header)

    def remove_unfinished(self, unwanted: Callable[[str], bool]) -> None:
        """Remove those whose names are unwanted: their result is there, or nobody is to go on with it."""
        self._require_open()
        for name, path in layout.unfinished(self.root):
            if unwanted(name):
                with writing(path):
                    disk.remove(path)

    # ---- inside -------------------------------------------------------------------------------------

    def _read(self, path: Path, what: str, mapped: bool) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        with reading(path):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            found = read_tensors(path, what, mapped, verified=self._verified.get(path) == state)
        self._verified[path] = state
        return found

    def _read_named(
        self, path: Path, name: str, key: Any, mapped: bool
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        found = self._read(path, "store result", mapped)
        if found is None:
            return None
        tensors, header = found
        with reading(path), understanding(path):
            problem = whole_problem(header, name, self._digest)
            held, own = header["key"], header["own"]
        _refuse(path, problem)
        return (tensors, own) if held == digest(key) else None

    def _write_named(
        self,
        path: Path,
        name: str,
        key: Any,
        tensors: Mapping[str, Tensor],
        header: Mapping[str, Any] | None,
    ) -> None:
        about = {"name": name, "key": digest(key), "context": self._digest, "own": dict(header or {})}
        self._write(path, "store result", tensors, about)

    def _write(self, path: Path, what: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        self._require_open()
        with writing(path):
            write_tensors(path, what, tensors, header)

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.root} has been closed")


def _refuse_what_is_no_store(root: Path) -> None:
    """Before anything is written there."""
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is a file, and a store is a directory")
    with writing(root):
        if Manifest.read(root) is None and root.is_dir() and (others := layout.foreign(root)):
            raise StoreError(f"{root} is no store, and not empty: {others[0].name!r} is in it")


def _refuse(path: Path, problem: str | None) -> None:
    if problem:
        raise StoreError(f"{path} {problem}; {REMEDY}")


def _rows(length: int, counts: Sequence[int] | None, held: int, n: int) -> int:
    """How many rows of a tensor are those of the first n of the tasks held."""
    return length // held * n if counts is None else sum(counts[:n])
