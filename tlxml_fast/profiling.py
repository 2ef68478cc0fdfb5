"""Where the time goes: spans around operations, the rates they reach, and what this machine could reach.

The engine puts `span(name, flops, bytes)` around its operations. A span costs next to nothing until somebody asks:

    with Profile() as profile:
        influence.fit(tasks)
    profile.rows()                     # one Row an operation
    profile.write_trace("trace.json")  # for chrome://tracing or Perfetto
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .errors import TlxError
from .files import write_text

OTHER = "other"

# A peak is the median over this long, so that both of a dtype, with their warm-up, take well under a second.
SECONDS_A_PEAK = 0.1
# Sizes at which the rates have levelled off and no cache holds the data: rows of the matrices, bytes copied.
CPU_SIZES = (1024, 2**26)
CUDA_SIZES = (4096, 2**29)

_NOTHING = nullcontext()
_active: Profile | None = None


def span(
    name: str, flops: float = 0, bytes: float = 0, *, dtype: torch.dtype | None = None
) -> AbstractContextManager[object]:
    """Times what is inside if a `Profile` runs; else does nothing, in well under a microsecond.

    For the threads that do the work, not for one that waits for others: its waiting would count as work.

    flops  what the operation inside computes, and
    bytes  what it must read and write, each without what spans inside it state; 0 where it is not known
    dtype  of the peaks it is compared with; the profile's unless given
    """
    profile = _active
    return _NOTHING if profile is None else _Span(profile, name, flops, bytes, dtype)


class _Span:
    """One execution of an operation. Marks are nanoseconds on the CPU, events on CUDA."""

    __slots__ = ("bytes", "dtype", "end", "flops", "name", "parent", "profile", "start", "thread", "threads")

    def __init__(self, profile: Profile, name: str, flops: float, bytes: float, dtype: torch.dtype | None):
        self.profile, self.name, self.flops, self.bytes, self.dtype = profile, name, flops, bytes, dtype

    def __enter__(self) -> None:
        open_spans = self.profile._open_spans()
        self.parent = open_spans[-1] if open_spans else None
        open_spans.append(self)
        self.thread, self.threads = threading.get_ident(), self.profile._threads_here()
        self.start = self.profile._mark()

    def __exit__(self, *_: object) -> None:
        self.end = self.profile._mark()
        self.profile._open_spans().pop()
        if _active is self.profile:  # one that outlives the profile is not part of it
            self.profile._spans.append(self)  # atomic, from whichever thread


@dataclass(frozen=True)
class Peaks:
    """What a device reaches: flops/s of a matrix product, bytes/s (read and written) of a copy."""

    flops: float
    bytes: float

    def seconds(self, flops: float, bytes: float) -> tuple[float, float]:
        """How long so much work takes at each of the two."""
        return flops / self.flops, bytes / self.bytes


@dataclass(frozen=True)
class Row:
    """An operation, over all its calls."""

    op: str
    calls: int
    seconds: float
    """Its own, without spans inside it. What occupies 1 of N threads counts 1/N, so that rows add up to the wall."""
    share: float
    """Of the wall time."""
    flops_per_second: float | None
    bytes_per_second: float | None
    peak: float | None
    """The larger share of a peak: of the matrix product's flops/s, or of the copy's bytes/s. May exceed 1 for bytes
    that stay in a cache."""
    bound: str | None
    """Which of the two that is: "compute" or "memory"."""


class Profile:
    """Collects the spans of every thread while it is entered; one at a time in a process.

    On CUDA the times are the device's, from pairs of events and one synchronisation at the end.

    device  what the work runs on
    dtype   of the peaks that spans are compared with, for spans that state none
    clock   of the CPU, in nanoseconds
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        clock: Callable[[], int] = time.perf_counter_ns,
    ):
        self.device, self.dtype = torch.device(device), dtype
        self.threads = 1
        self._mark: Callable[[], Any] = self._event if self.device.type == "cuda" else clock
        self._local = threading.local()
        self._spans: list[_Span] = []
        self._start: Any = None
        self._end: Any = None

    def __enter__(self) -> Profile:
        global _active
        if _active is not None:
            raise TlxError("a profile is running already, and one cannot run inside another")
        if self.device.type == "cpu":
            self.threads = torch.get_num_threads()
        self._spans, self._start = [], self._mark()
        _active = self
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = None
        self._end = self._mark()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def seconds(self) -> float:
        """The wall time."""
        return self._since(self._start, self._end) / 1e9

    def rows(self) -> list[Row]:
        """A row an operation, the longest first; last the time that no span accounts for, "other"."""
        own = {s: self._since(s.start, s.end) / 1e9 for s in self._spans}
        whole = dict(own)
        for s in self._spans:
            if s.parent in own:
                own[s.parent] -= whole[s]
        by_name: dict[str, list[_Span]] = defaultdict(list)
        for s in self._spans:
            by_name[s.name].append(s)
        wall = self.seconds
        rows = [self._row(name, spans, own, wall) for name, spans in by_name.items()]
        rows.sort(key=lambda row: row.seconds, reverse=True)
        rest = max(wall - sum(row.seconds for row in rows), 0.0)
        return [*rows, Row(OTHER, 0, rest, _ratio(rest, wall), None, None, None, None)]

    def peaks(self) -> dict[str, Peaks]:
        """The measured peaks of every dtype that spans were compared at."""
        used = {s.dtype or self.dtype for s in self._spans if s.flops or s.bytes} | {self.dtype}
        return {name: peaks(self.device, getattr(torch, name)) for name in sorted(map(_name, used))}

    def describe(self) -> dict[str, Any]:
        """Rows, peaks and the machine; JSON."""
        return {
            "seconds": self.seconds,
            "threads": self.threads,
            "rows": [vars(row) for row in self.rows()],
            "peaks": {name: vars(reached) for name, reached in self.peaks().items()},
            "machine": machine(self.device),
        }

    def trace(self) -> list[dict[str, Any]]:
        """Complete events of the Chrome trace format, in the order they began: microseconds from the start."""
        numbers: dict[int, int] = {}
        events = []
        began = {s: self._since(self._start, s.start) for s in self._spans}
        for s in sorted(self._spans, key=began.__getitem__):
            events.append(
                {
                    "name": s.name,
                    "ph": "X",
                    "ts": began[s] / 1e3,
                    "dur": self._since(s.start, s.end) / 1e3,
                    "pid": os.getpid(),
                    "tid": numbers.setdefault(s.thread, len(numbers)),  # identifiers are unreadably long
                    "args": {"flops": s.flops, "bytes": s.bytes},
                }
            )
        return events

    def write_trace(self, path: str | os.PathLike[str]) -> None:
        """Write `trace()` as a file that chrome://tracing and Perfetto open."""
        text = json.dumps({"traceEvents": self.trace(), "displayTimeUnit": "ms"}, ensure_ascii=False)
        write_text(path, text + "\n")

    # ---- inside -------------------------------------------------------------------------------------

    def _row(self, name: str, spans: list[_Span], own: dict[_Span, float], wall: float) -> Row:
        # a span holds as many threads as torch would use there: all, or one where tasks run side by side
        seconds = sum(own[s] * min(s.threads / self.threads, 1.0) for s in spans)
        flops, bytes = sum(s.flops for s in spans), sum(s.bytes for s in spans)
        compute = memory = 0.0  # seconds it would take at the peaks
        for s in spans:
            if s.flops or s.bytes:
                each = peaks(self.device, s.dtype or self.dtype).seconds(s.flops, s.bytes)
                compute, memory = compute + each[0], memory + each[1]
        peak, bound = _larger(compute, memory, seconds) if flops or bytes else (None, None)
        return Row(
            name,
            len(spans),
            seconds,
            _ratio(seconds, wall),
            _ratio(flops, seconds) if flops else None,
            _ratio(bytes, seconds) if bytes else None,
            peak,
            bound,
        )

    def _open_spans(self) -> list[_Span]:
        """Those of this thread, the innermost last."""
        try:
            return self._local.spans
        except AttributeError:
            self._local.spans = []
            return self._local.spans

    def _threads_here(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _since(self, start: Any, end: Any) -> float:
        """Nanoseconds between two marks."""
        return start.elapsed_time(end) * 1e6 if self.device.type == "cuda" else end - start


def peaks(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Peaks:
    """What `device` reaches with torch as it is set now: its threads, its precision of matrix products.

    Measured once a process, in well under a second, as the median of several; so whoever asks gets the same figures.
    """
    device = torch.device(device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return _measured_peaks(device, dtype, threads)


def share_of_peak(flops: float, bytes: float, seconds: float, reached: Peaks) -> tuple[float, str]:
    """The larger of the shares of the two peaks, and whether that is of "compute" or of "memory"."""
    compute, memory = reached.seconds(flops, bytes)
    return _larger(compute, memory, seconds)


@cache
def _measured_peaks(device: torch.device, dtype: torch.dtype, threads: int) -> Peaks:
    rows, size = CUDA_SIZES if device.type == "cuda" else CPU_SIZES
    with torch.inference_mode():
        a = torch.ones(rows, rows, dtype=dtype, device=device)
        product = torch.empty_like(a)
        flops = 2 * rows**3 / _median_seconds(lambda: torch.mm(a, a, out=product), device)
        source = torch.ones(size // dtype.itemsize, dtype=dtype, device=device)
        copy = torch.empty_like(source)
        bytes = 2 * size / _median_seconds(lambda: copy.copy_(source), device)
    return Peaks(flops, bytes)


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()  # the first touches new memory
    times = [once() for _ in range(3)]
    while sum(times) < SECONDS_A_PEAK:
        times.append(once())
    return statistics.median(times)


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What figures were measured on: processor, device, threads, versions; JSON."""
    device = torch.device(device)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _larger(compute: float, memory: float, seconds: float) -> tuple[float, str]:
    return _ratio(max(compute, memory), seconds), "compute" if compute >= memory else "memory"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
