"""Where things lie in a store, and what may lie there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError
from ..files import is_part

MANIFEST, TASKS, LOCK = "manifest.json", "tasks.safetensors", ".lock"
SHARDS, WHOLE, UNFINISHED = "shards", "whole", "unfinished"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SHARD_FILE = re.compile(r"([0-9]{8})\.safetensors")


def shard_path(root: Path, kind: str, index: int) -> Path:
    return root / SHARDS / _checked(kind) / f"{index:08d}.safetensors"


def whole_path(root: Path, name: str) -> Path:
    return root / WHOLE / f"{_checked(name)}.safetensors"


def unfinished_path(root: Path, name: str) -> Path:
    return root / UNFINISHED / f"{_checked(name)}.safetensors"


def directories(root: Path) -> list[Path]:
    """Those that there are: the root, that of each kind of shards, and those of results and of unfinished ones."""
    kinds = sorted((root / SHARDS).iterdir()) if (root / SHARDS).is_dir() else []
    return [path for path in (root, root / SHARDS, *kinds, root / WHOLE, root / UNFINISHED) if path.is_dir()]


def shards(root: Path) -> Iterator[tuple[str, int, Path]]:
    """The kind, index and path of every shard there is, in order."""
    for path in sorted((root / SHARDS).glob("*/*.safetensors")):
        if match := SHARD_FILE.fullmatch(path.name):
            yield path.parent.name, int(match[1]), path


def wholes(root: Path) -> Iterator[tuple[str, Path]]:
    """The name and path of every result there is, in order."""
    return _named(root / WHOLE)


def unfinished(root: Path) -> Iterator[tuple[str, Path]]:
    """The name and path of what is kept of every unfinished one."""
    return _named(root / UNFINISHED)


def _named(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.glob("*.safetensors")):
        if NAME.fullmatch(path.stem):
            yield path.stem, path


def parts(root: Path) -> list[Path]:
    """What killed writers left behind."""
    return sorted(path for directory in directories(root) for path in directory.iterdir() if is_part(path))


def foreign(root: Path) -> list[Path]:
    """What no store has put there."""
    own = {root / name for name in (MANIFEST, TASKS, LOCK)} | set(directories(root)) | set(parts(root))
    own |= {path for _, _, path in shards(root)}
    own |= {path for _, path in (*wholes(root), *unfinished(root))}
    return sorted(path for directory in directories(root) for path in directory.iterdir() if path not in own)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise StoreError(f"{name!r} names nothing in a store: letters, digits, '-', '_' and '.' do")
    return name
