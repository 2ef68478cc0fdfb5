"""A store looked through: what is damaged, missing or left over, and what there is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError, TlxError
from ..files import read_tensors, understanding
from ..progress import progress_bar
from . import layout
from .checks import reading, shard_problem, whole_problem
from .lock import refuse_in_use
from .manifest import Manifest
from .tasks import read_tasks

GRADIENTS = "gradients"


@dataclass(frozen=True)
class Finding:
    """Something about one file.

    what   "damaged": it is not used, and a run that needs it stops; "missing" or "partial": it is yet to be
           computed, or completed; "leftover": a killed run left it, the next removes it; "foreign": no store put
           it there
    """

    path: Path
    what: str
    problem: str

    def __str__(self) -> str:
        return self.problem if str(self.path) in self.problem else f"{self.path} {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found, and how many files and bytes it read."""

    findings: tuple[Finding, ...]
    files: int
    bytes: int

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not any(finding.what == "damaged" for finding in self.findings)


def verify(directory: str | os.PathLike[str], progress: bool = False) -> Verification:
    """Read every byte of a store and check it against its checksum, name, place, tasks and manifest.

    Costs one reading at the speed of SHA-256, and memory for one piece of a file. Writes nothing.

    Raises StoreError where there is no store, a run is at work in it, or its manifest is damaged.
    """
    root, manifest = _opened(directory)
    refuse_in_use(root)
    found: list[Finding] = []
    try:
        tasks = read_tasks(root, manifest.digest)
    except StoreError as error:
        found.append(Finding(root / layout.TASKS, "damaged", str(error)))
        tasks = []
    held, wholes = list(layout.shards(root)), [*layout.wholes(root), *layout.unfinished(root)]
    size = 0
    with progress_bar("verifying", len(held) + len(wholes), progress) as advance:
        for kind, index, path in held:
            size += path.stat().st_size
            found += _shard_findings(path, kind, index, manifest, tasks)
            advance(1)
        for name, path in wholes:
            size += path.stat().st_size
            found += _whole_findings(path, name, manifest)
            advance(1)
    found += [
        Finding(layout.shard_path(root, kind, index), "missing", "is not stored yet")
        for kind, indices in _by_kind(root).items()
        for index in range(-(-len(tasks) // manifest.shard_size))
        if index not in indices
    ]
    found += _absent(root, held, wholes)
    found += [
        Finding(path, "leftover", "was left half-written by a run that was killed")
        for path in layout.parts(root)
    ]
    found += [Finding(path, "foreign", "is no file of a store") for path in layout.foreign(root)]
    return Verification(tuple(found), len(held) + len(wholes), size)


def _absent(
    root: Path, held: list[tuple[str, int, Path]], wholes: list[tuple[str, Path]]
) -> Iterator[Finding]:
    """What there must have been, where other things were made of it."""
    if (held or wholes) and not (root / layout.TASKS).exists():
        yield Finding(root / layout.TASKS, "missing", "is missing: the next run writes it again")
    if wholes and not any(kind.startswith(GRADIENTS) for kind, _, _ in held):
        where = root / layout.SHARDS / GRADIENTS
        yield Finding(where, "missing", "is missing, and results are there: it is computed again")


def describe(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What a store was made with, and how many tasks, shards and bytes of which kind it holds; JSON.

    Reads no tensors. Raises StoreError where there is no store, or its manifest or task list is damaged.
    """
    root, manifest = _opened(directory)
    tasks = len(read_tasks(root, manifest.digest))
    kinds = {
        kind: {"shards": len(paths), "bytes": sum(path.stat().st_size for path in paths.values())}
        for kind, paths in _by_kind(root).items()
    }
    whole, unfinished = (
        {name: path.stat().st_size for name, path in named(root)}
        for named in (layout.wholes, layout.unfinished)
    )
    return {
        "directory": str(root),
        "format": manifest.format,
        "context": manifest.context,
        "choices": manifest.choices,
        "tasks": tasks,
        "shard_size": manifest.shard_size,
        "shards": -(-tasks // manifest.shard_size),
        "kinds": kinds,
        "whole": whole,
        "unfinished": unfinished,
        "bytes": sum(kind["bytes"] for kind in kinds.values()) + sum([*whole.values(), *unfinished.values()]),
    }


def in_words(directory: str | os.PathLike[str], tasks: int) -> str:
    """What of a run over `tasks` tasks is there already, in a sentence; "" where there is no store yet.

    Raises StoreError as `describe` does.
    """
    if not (Path(directory) / layout.MANIFEST).exists():
        return ""
    found = describe(directory)
    shards = -(-tasks // found["shard_size"])
    kinds = [
        f"{kind} in {held['shards']} of {shards} shards" for kind, held in sorted(found["kinds"].items())
    ]
    # results are of all its tasks: of others they are made anew
    wholes = len(found["whole"]) if tasks == found["tasks"] else 0
    unfinished = bool(found["unfinished"])
    parts = [
        *kinds,
        *([f"{wholes} results of all tasks"] if wholes else []),
        *(["others under way"] if unfinished else []),
    ]
    return f"going on from {directory}, which has {', '.join(parts) or 'nothing yet'}"


def _opened(directory: str | os.PathLike[str]) -> tuple[Path, Manifest]:
    root = Path(directory)
    manifest = Manifest.read(root)
    if manifest is None:
        raise StoreError(f"{root} is no store: it has no {layout.MANIFEST}")
    return root, manifest


def _by_kind(root: Path) -> dict[str, dict[int, Path]]:
    kinds: dict[str, dict[int, Path]] = defaultdict(dict)
    for kind, index, path in layout.shards(root):
        kinds[kind][index] = path
    return dict(kinds)


def _shard_findings(
    path: Path, kind: str, index: int, manifest: Manifest, tasks: list[str]
) -> Iterator[Finding]:
    ids = tasks[index * manifest.shard_size : (index + 1) * manifest.shard_size]
    try:
        with reading(path), understanding(path):
            _, header = read_tensors(path, "store shard", mapped=True)
            problem = shard_problem(header, kind, index, manifest.digest, ids)
            held = len(header["tasks"])
    except TlxError as error:
        yield Finding(path, "damaged", str(error))
        return
    if problem or (tasks and held > len(ids)):
        yield Finding(path, "damaged", problem or f"has {held} tasks where the store knows {len(ids)}")
    elif held < len(ids):
        yield Finding(path, "partial", f"has {held} of {len(ids)} tasks")


def _whole_findings(path: Path, name: str, manifest: Manifest) -> Iterator[Finding]:
    try:
        with reading(path), understanding(path):
            _, header = read_tensors(path, "store result", mapped=True)
            problem = whole_problem(header, name, manifest.digest)
    except TlxError as error:
        problem = str(error)
    if problem:
        yield Finding(path, "damaged", problem)
