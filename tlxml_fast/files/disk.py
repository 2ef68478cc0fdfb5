"""All that changes a disk, in six calls. Tests put calls that fail or kill in their place, one after the other."""

from __future__ import annotations

import os
from pathlib import Path


def make_directory(path: Path) -> None:
    """Make one directory."""
    os.mkdir(path)


def create(path: Path) -> int:
    """A descriptor of a new file, with the permissions that any new file gets."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of the data; the system may take them in pieces."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def sync(descriptor: int) -> None:
    """Return once the disk has the file, or the names in the directory."""
    os.fsync(descriptor)


def rename(part: Path, final: Path) -> None:
    """Put a file in its place, over what is there."""
    os.replace(part, final)


def remove(path: Path) -> None:
    """Remove a file."""
    os.unlink(path)
