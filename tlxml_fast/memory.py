"""Memory: how much may be used, and what is done with what is freed.

A limit holds for everything that is chosen inside `limited`: how much is worked on at once, what is kept, and what is
refused before it begins.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from .errors import TlxError

# From malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# What the libraries take before any work: code of torch that is paged in, and its state.
LIBRARIES, LEAST = 704 << 20, 1 << 30
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_limit: ContextVar[int | None] = ContextVar("memory limit", default=None)
_on_device: ContextVar[int | None] = ContextVar("memory on a device", default=None)


def parse_bytes(text: str | int) -> int:
    """Bytes from "8GiB", "512 MB" or a number; K, M, G and T are powers of 1,024, with or without the i."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise TlxError(f"memory is a size such as '8GiB', not {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parse_limit(text: str | int) -> int:
    """The same, and TlxError below 1 GiB, which leaves no room for work beside the libraries."""
    limit = parse_bytes(text)
    if limit < LEAST:
        raise TlxError(
            f"memory is at least {in_units(LEAST)}, most of which the libraries take, not {in_units(limit)}"
        )
    return limit


@contextmanager
def limited(limit: int | None) -> Iterator[None]:
    """What is chosen inside keeps the process's resident memory below `limit` bytes; None leaves it as it is."""
    token = _limit.set(limit if limit is not None else _limit.get())
    try:
        yield
    finally:
        _limit.reset(token)


def limit() -> int | None:
    """The limit that holds here."""
    return _limit.get()


@contextmanager
def as_on_device(free: int | None) -> Iterator[None]:
    """Chunks on a device are chosen inside as if so many bytes were free; by what is where None is given."""
    token = _on_device.set(free)
    try:
        yield
    finally:
        _on_device.reset(token)


def on_device() -> int | None:
    """The bytes that chunks are chosen by here, unless what is free decides."""
    return _on_device.get()


def share(fraction: float, most: int) -> int:
    """At most `most` bytes, and this fraction of what a limit leaves for work: the same whatever is free just now."""
    return most if _limit.get() is None else min(most, max(0, int(fraction * (_limit.get() - LIBRARIES))))


def available() -> int:
    """Bytes that may still be taken: what is free, or what the limit leaves."""
    free = _free()
    return free if _limit.get() is None else max(0, min(free, _limit.get() - resident()))


def require(needed: int, what: str) -> None:
    """Raise TlxError if `needed` more bytes cannot be had, before anything long begins."""
    room = available()
    if needed > room:
        bound = "are free" if _limit.get() is None else f"are left of the {in_units(_limit.get())} allowed"
        raise TlxError(f"{what} needs {in_units(needed)}, and {in_units(room)} {bound}")


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _free() -> int:
    """What the system can give without swapping, caches that it would drop included."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) << 10 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_units(size: int) -> str:
    """A size in words."""
    if size < 1 << 20:
        return f"{size:,} bytes"
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"


@cache
def keep_freed_memory() -> str:
    """Have glibc keep freed memory for the next allocation, once a process; says what was done.

    The engine allocates and frees the same large arrays over and over. glibc returns blocks above 32 MiB, and the top
    of each thread's heap, to the kernel at once, which then clears and maps every page anew, one thread at a time: on
    two cores that undid all of the gain of the second.

    TLXML_FAST_KEEP_MEMORY=0 leaves the process as it is.
    """
    if os.environ.get("TLXML_FAST_KEEP_MEMORY", "1") == "0":
        return "left to the system: TLXML_FAST_KEEP_MEMORY=0"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return "left to the system: no mallopt in this C library"
    largest = 2**31 - 1
    done = [mallopt(option, value) for option, value in (
        (M_MMAP_THRESHOLD, largest), (M_TRIM_THRESHOLD, largest), (M_ARENA_MAX, 1)
    )]  # fmt: skip
    return "kept for reuse" if all(done) else "left to the system: mallopt refused"
