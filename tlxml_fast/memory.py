"""Freed memory is kept for the next allocation instead of being given back to the system.

The engine allocates and frees the same large arrays over and over. glibc returns blocks above 32 MiB, and the top of
each thread's heap, to the kernel at once, which then clears and maps every page anew, one thread at a time: on two
cores that undid all of the gain of the second.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

# From malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


@cache
def keep_freed_memory() -> str:
    """Ask glibc to, once a process; says what was done. TLXML_FAST_KEEP_MEMORY=0 leaves the process as it is."""
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
