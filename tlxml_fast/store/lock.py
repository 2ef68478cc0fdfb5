"""One process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from ..errors import StoreError
from ..files import disk
from .layout import LOCK


def acquire(root: Path) -> int:
    """A descriptor that holds the store until it is closed, by whatever ends the process.

    The system's lock and not the file is what counts: a file that a killed process left behind locks nothing.
    """
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(root, descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        disk.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_in_use(root: Path) -> None:
    """Raise StoreError where a run is at work. Writes nothing."""
    try:
        descriptor = os.open(root / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy without it, or no store
        return
    try:
        _lock(root, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(root: Path, descriptor: int, how: int) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"
        raise StoreError(f"{root} is in use by {holder}; a store serves one run at a time") from None
