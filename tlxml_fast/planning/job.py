"""What is to be computed, and a part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..compression import Compression
from .work import TaskWork


@dataclass(frozen=True)
class Job:
    """What is to be computed.

    tasks, tests   how many, over all processes
    work           of one task
    rows_per_task  of a Fisher sketch
    compression    what gradients and rows are projected by, if they are
    precision      bytes of a number in tasks
    damping        of the largest eigenvalue
    """

    tasks: int
    tests: int
    work: TaskWork
    rows_per_task: int = 8
    compression: Compression | None = None
    precision: int = 4
    damping: float = 1e-3

    @property
    def condition(self) -> float:
        """κ of C + damping, at most."""
        return 1 + 1 / self.damping

    @property
    def tol(self) -> float:
        """What conjugate gradients are taken to stop at: in float32 residuals below about 10⁻⁷κ are out of reach."""
        return max(1e-6, 1e-7 * self.condition) if self.precision == 4 else 1e-6

    @property
    def width(self) -> int:
        """Numbers in a gradient or row as it is kept."""
        return self.work.q if self.compression is None else self.compression.dimension

    @property
    def row_bytes(self) -> int:
        """Bytes of one."""
        return self.width * (
            self.precision if self.compression is None else self.compression.storage.itemsize
        )


@dataclass(frozen=True)
class Phase:
    """Flops of all processes together; seconds and bytes of one.

    flops    of tasks in their precision, of linear algebra in float64
    moved    bytes read and written in memory, outside tasks
    stored   bytes of gradients or rows that stay: in memory, or in a store
    read     bytes of those that are read again
    holds    bytes that stay in memory whether there is a store or not
    needs    bytes while it runs, besides
    traffic  bytes sent to other processes
    """

    name: str
    seconds: float
    flops: float = 0.0
    moved: float = 0.0
    stored: float = 0.0
    read: float = 0.0
    holds: float = 0.0
    needs: float = 0.0
    traffic: float = 0.0

    def repeated(self, name: str, times: int) -> Phase:
        """So many times; what it holds and needs does not add up."""
        more = {k: times * getattr(self, k) for k in ("seconds", "flops", "moved", "read", "traffic")}
        return replace(self, name=name, **more)
