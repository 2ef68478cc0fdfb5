"""How fast a process is at everything but tasks: measured here, or from a data sheet."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import memory
from ..curvature.gram import gram
from ..errors import TlxError
from ..linearize.compiled import VECTOR_BYTES, VECTOR_SHARE
from ..profiling import peaks
from ..solvers.dual import Cholesky, Spectral
from .sheets import SHEETS, Sheet

# Sizes beyond which rates are taken to stay as they are, so that measuring takes seconds; how long one goes on for.
LARGEST, LARGEST_EIGH, SECONDS = 2048, 1024, 0.3
# Of a data sheet's peaks, what is assumed to be reached: by large products; by small and fused ones, the engine's; by
# memory; by factorisations; by eigendecompositions; by links. And what a device has free.
PRODUCTS, ENGINE, MEMORY, CHOLESKY, EIGH, LINKS, FREE = 0.7, 0.35, 0.7, 0.3, 0.03, 0.5, 0.9
# Of processors; a floating-point product of the engine as a share of a large one.
ENGINE_HERE = 0.5
# Devices in one machine, and the network between machines: 400 Gbit/s a device, 10 Gbit/s for machines like this one.
A_MACHINE, NETWORK, NETWORK_HERE = 8, 50e9, 1.25e9
# What a device's chunks need to be large enough; they take all that is free.
WORKING = 4 << 30
# A local NVMe disk, where none was measured.
DISK = 2e9


@dataclass(frozen=True)
class Rates:
    """Of one process; flops and bytes a second.

    engine     flops of products inside tasks, where the engine itself was not measured
    gram       of Gram matrices of float32 rows, half their entries, summed in float64
    product    of float64 matrices
    eigh       9n³ flops; cholesky n³/3
    copy       bytes read and written
    link       bytes a process sends to others
    working    bytes that the engine works in, at most
    room       bytes it may have
    base       bytes it has before it begins
    """

    engine: float
    gram: float
    product: float
    eigh: float
    cholesky: float
    copy: float
    write: float
    read: float
    link: float
    working: int
    room: int
    base: int
    processes: int
    source: str


def of_devices(text: str, room: int | None, folder: Path | None = None) -> tuple[Rates, Sheet | None]:
    """From "cpu", "4xcpu" or "64xH100", with the data sheet if that is what they are from.

    room    bytes a process may have, unless all that is free
    folder  where a store would lie, whose disk is measured
    """
    match = re.fullmatch(r"(?:(\d+)x)?([A-Za-z]\w*)", text.strip())
    count, name = (int(match[1] or 1), match[2].upper()) if match else (0, "")
    if count < 1 or name not in {"CPU", *SHEETS}:
        raise TlxError(
            f"devices are 'cpu' (this machine) or one of {', '.join(SHEETS)}, as in '64xH100', not {text!r}"
        )
    if name == "CPU":
        return measured(count, room, folder or Path.cwd()), None
    return of_sheet(SHEETS[name], count, room), SHEETS[name]


def of_sheet(sheet: Sheet, count: int, room: int | None) -> Rates:
    """So many devices, at the shares of their peaks that are assumed above."""
    link = LINKS * (sheet.link / 2 if count <= A_MACHINE else min(sheet.link / 2, NETWORK))
    source = (
        f"the data sheet of {sheet.name}, nothing measured: {ENGINE:.0%} of its fp32 peak in tasks, {PRODUCTS:.0%} in "
        f"large products, {CHOLESKY:.0%} in Cholesky factorisations, {EIGH:.0%} in eigendecompositions, {MEMORY:.0%} "
        f"of its bandwidth; machines of {A_MACHINE} on a network of 400 Gbit/s a device; disks of 2 GB/s"
    )
    return Rates(
        engine=ENGINE * sheet.fp32,
        gram=PRODUCTS * sheet.fp32,
        product=PRODUCTS * sheet.fp64,
        eigh=EIGH * sheet.fp64,
        cholesky=CHOLESKY * sheet.fp64,
        copy=MEMORY * sheet.bandwidth,
        write=DISK,
        read=DISK,
        link=link,
        working=WORKING,
        room=room or int(FREE * sheet.memory),
        base=1 << 30,
        processes=count,
        source=source,
    )


def measured(count: int, room: int | None, folder: Path) -> Rates:
    """This machine's, in a few seconds; `count` machines like it."""
    at = peaks("cpu", torch.float32)
    write, read = disk(folder)
    threads, there = torch.get_num_threads(), room or memory.available() + memory.resident()
    source = f"measured on this machine now, with {threads} thread" + "s" * (threads > 1)
    if count > 1:
        source += f"; {count} machines like it on a network of 10 Gbit/s"
    return Rates(
        engine=ENGINE_HERE * at.flops,
        gram=gram_rate(LARGEST),
        product=peaks("cpu", torch.float64).flops,
        eigh=eigh_rate(LARGEST_EIGH),
        cholesky=cholesky_rate(LARGEST),
        copy=at.bytes,
        write=write,
        read=read,
        link=NETWORK_HERE,
        working=threads * min(VECTOR_BYTES, int(VECTOR_SHARE * there)),
        room=there,
        base=memory.resident(),
        processes=count,
        source=source,
    )


# ---- the measurements -----------------------------------------------------------------------------------------


def gram_rate(n: int, m: int = 2048) -> float:
    """Of `gram`: mn² flops for m rows of n numbers."""
    rows, total = torch.randn(m, n), torch.zeros(n, n, dtype=torch.float64)
    return m * n**2 / _seconds(lambda: gram(rows, total))


def eigh_rate(n: int) -> float:
    """Of `Spectral`, which overwrites its matrix."""
    matrix = torch.randn(n, n, dtype=torch.float64)
    matrix = matrix @ matrix.mT
    return 9 * n**3 / _seconds(lambda: Spectral.of(matrix.clone()))


def cholesky_rate(n: int) -> float:
    """Of `Cholesky`, which does too."""
    matrix = torch.eye(n, dtype=torch.float64)
    return n**3 / 3 / _seconds(lambda: Cholesky(matrix.clone()))


def disk(folder: Path, size: int = 64 << 20) -> tuple[float, float]:
    """Bytes a second of writing a file and syncing it, and of reading it again, past the system's cache where it can
    be told to drop it."""
    data = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(size >> 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(1 << 20):
            pass
        return size / written, size / (time.perf_counter() - start)


def _seconds(run: Callable[[], object]) -> float:
    """The median after one that does not count, over at least SECONDS."""
    run()
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
