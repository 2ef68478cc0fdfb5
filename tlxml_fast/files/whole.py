"""A file is written under a temporary name beside its own, synced and renamed, and its directory is synced.

Whatever kills the process, there is the old file or the new one. Temporary names are `.NAME.XXXXXXXX.part`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CheckpointError
from . import disk

PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, synced and renamed over it on success, removed on any failure.

    Directories on the way are made.
    """
    with writing(path) as (part, _):
        yield part


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[tuple[Path, int]]:
    """`replacing`, with a descriptor of the temporary file for `disk.write`."""
    final = Path(path)
    if final.is_dir():
        raise CheckpointError(f"{final} is a directory, and a file is to be written there")
    make_directories(final.parent)
    part = final.parent / f".{final.name}.{secrets.token_hex(4)}.part"
    try:
        descriptor = disk.create(part)
        try:
            yield part, descriptor
            disk.sync(descriptor)
        finally:
            os.close(descriptor)
        disk.rename(part, final)
        _sync_directory(final.parent)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what to tell
            disk.remove(part)
        raise


def make_directories(path: Path) -> None:
    """Make a directory and those above it, each on the disk before anything is written into it."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        disk.make_directory(path)
    except FileExistsError:  # another process was faster, or a file is in the way
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    _sync_directory(path.parent)


def is_part(path: Path) -> bool:
    """Whether a killed writer may have left this file behind."""
    return PART.fullmatch(path.name) is not None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # so says a file system on which directories need no sync
            raise
    finally:
        os.close(descriptor)
