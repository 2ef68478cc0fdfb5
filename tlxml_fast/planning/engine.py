"""Seconds that tasks take in the engine: calibrated on a few of them, or from flops."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ..compression import Compression
from ..curvature import Fisher, GaussNewton
from ..gradients import Gradients
from ..kept import Kept
from ..learners import Learner
from ..linearize import Linearization, linearize
from ..linearize.shards import MOST_TASKS, Shards
from ..task import TaskSet
from .rates import LARGEST, Rates
from .work import TaskWork

# A measurement goes on for so long, on so many tasks of images at most, with so many vectors.
SECONDS, MOST_IMAGES, MOST_VECTORS = 1.0, 32, 32


class Engine(Protocol):
    """Seconds a task on one process, with what it takes to linearize and to compress it."""

    source: str

    def gradient(self) -> float:
        """Its loss and gradient."""

    def sketch(self, rows: int) -> float:
        """So many pull-backs of cotangents of all its queries."""

    def factor(self) -> float:
        """All rows of its Gauss-Newton matrix."""

    def matrix(self) -> float:
        """Its Gauss-Newton matrix: the rows, or products with the identity, and the sum over tasks."""

    def products(self, K: int) -> float:
        """Gauss-Newton products with K vectors."""

    def hessians(self, K: int) -> float:
        """Exact Hessian products with K vectors."""


@dataclass(frozen=True)
class Counted:
    """From flops, at the rate that `rates` has for the engine."""

    work: TaskWork
    rates: Rates

    @property
    def source(self) -> str:
        return f"counted, {self.work.counted}"

    def gradient(self) -> float:
        """The forward pass for the loss, and again for the gradient."""
        return self._at(2 * self.work.primal + self.work.vector)

    def sketch(self, rows: int) -> float:
        """The logits first."""
        return self._at(2 * self.work.primal + rows * self.work.vector)

    def factor(self) -> float:
        """n(C−1) pull-backs."""
        return self.sketch(self.work.outputs)

    def matrix(self) -> float:
        """n(C−1) pull-backs and their Gram matrix, unless q products are less."""
        work = self.work
        if work.outputs > 2 * work.q:
            return self.products(work.q)
        pulled = self._at(2 * work.primal + work.outputs * work.vector)
        return pulled + work.outputs * work.q**2 / self.rates.gram

    def products(self, K: int) -> float:
        """There and back."""
        return self._at(self.work.primal + 2 * K * self.work.vector)

    def hessians(self, K: int) -> float:
        """As `TaskWork.second`."""
        return self._at(2 * self.work.primal + K * self.work.second)

    def _at(self, flops: float) -> float:
        return flops / self.rates.engine


@dataclass(frozen=True)
class Projected:
    """Another engine, with what it takes to read every gradient and row once more: no more than a sparse projection."""

    engine: Engine
    work: TaskWork
    rates: Rates

    @property
    def source(self) -> str:
        return self.engine.source

    def gradient(self) -> float:
        """And one row."""
        return self.engine.gradient() + self._projected(1)

    def sketch(self, rows: int) -> float:
        """And so many."""
        return self.engine.sketch(rows) + self._projected(rows)

    def factor(self) -> float:
        """And n(C−1)."""
        return self.engine.factor() + self._projected(self.work.outputs)

    def _projected(self, rows: int) -> float:
        return 4 * rows * self.work.q / self.rates.copy


@dataclass
class Calibrated:
    """Measured, each when it is first asked for, through what a run itself calls; times `scale` for more parameters.

    A few tasks, again and again for about a second. Where that is not enough for all vectors or rows, some are measured
    and the rest are taken to be as fast. Products with the exact Hessian: by their flops, beside Gauss-Newton's.
    """

    learner: Learner
    tasks: TaskSet
    work: TaskWork
    rates: Rates
    compression: Compression | None = None
    scale: float = 1.0
    _known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = MOST_IMAGES if self.tasks[0].query_x.ndim > 2 else MOST_TASKS
        self.tasks = TaskSet(self.tasks[: min(len(self.tasks), most)])
        self.lin = linearize(self.learner, self.tasks)

    @property
    def source(self) -> str:
        scaled = "" if self.scale == 1 else f", times {self.scale:.3g} for the parameters"
        return f"the engine calibrated on {len(self.tasks)} tasks ({self.lin.report.backend}){scaled}"

    def gradient(self) -> float:
        """Through `Gradients`, linearization included."""

        def run(tasks: TaskSet) -> None:
            Gradients(Shards(self.learner, tasks, linearize, len(tasks)), Kept(), self.compression, False)

        return self._measured("gradient", run)

    def sketch(self, rows: int) -> float:
        """By `Fisher`."""
        some = self._some(rows)
        fisher = Fisher(some)
        seconds = self._on_blocks(
            f"sketch {some}", lambda lin, block: self._compressed(fisher.rows(lin, block))
        )
        return seconds * rows / some

    def factor(self) -> float:
        """By `gn_rows`, of some columns of Λ's factor; as dense cotangents where that takes long."""
        if self._is_long(self.lin.n * self.gradient()):
            return self.sketch(self.lin.gn_rank)
        return self._by_columns(
            "factor", lambda lin, block, columns: self._compressed(lin.gn_rows(block, columns))
        )

    def matrix(self) -> float:
        """As it is assembled; from the rows and a Gram matrix's flops where it is large."""
        lin = self.lin
        if lin.gn_rank > 2 * lin.q:
            return self.products(lin.q)
        if lin.q > LARGEST or self._is_long(lin.n * self.gradient()):
            return self.factor() + self.work.outputs * self.work.q**2 / self.rates.gram
        return self._by_columns(
            "matrix",
            lambda lin, block, columns: GaussNewton().ways_to_assemble(lin)[0].assemble(block, columns),
        )

    def products(self, K: int) -> float:
        """By `gnvp`."""
        some = self._some(K)
        V = torch.ones(some, self.lin.q, dtype=self.lin.dtype)
        return self._measured(f"products {some}", lambda tasks: self._on(tasks).gnvp(V)) * K / some

    def hessians(self, K: int) -> float:
        """Gauss-Newton products, times the flops of the exact Hessian's over theirs."""
        return self.products(K) * self.work.second / (2 * self.work.vector)

    # ---- inside -----------------------------------------------------------------------------------------------

    def _some(self, K: int) -> int:
        """Vectors to measure with."""
        return min(K, MOST_VECTORS, self.lin.vectors_at_once())

    def _is_long(self, seconds_a_task: float) -> bool:
        return torch.get_num_threads() * seconds_a_task / self.scale > 2 * SECONDS

    def _compressed(self, rows: Tensor) -> Tensor:
        return rows if self.compression is None else self.compression.store(rows.flatten(0, 1))

    def _on(self, tasks: TaskSet) -> Linearization:
        return self.lin if len(tasks) == len(self.tasks) else linearize(self.learner, tasks)

    def _by_columns(self, name: str, of_block: Callable[[Linearization, slice, int | None], object]) -> float:
        """From one of the columns of every query's factor; from all, where that is quick."""
        columns = self.lin.gn_rank // self.lin.n
        one = self._on_blocks(f"{name} 1", lambda lin, block: of_block(lin, block, 1))
        if columns == 1 or self._is_long(columns * one):
            return columns * one
        return self._on_blocks(name, lambda lin, block: of_block(lin, block, None))

    def _on_blocks(self, name: str, of_block: Callable[[Linearization, slice], object]) -> float:
        def run(tasks: TaskSet) -> None:
            lin = self._on(tasks)
            with lin.task_threads() as each:
                for _ in each(partial(of_block, lin), lin.blocks):
                    pass

        return self._measured(name, run)

    def _measured(self, name: str, run: Callable[[TaskSet], object]) -> float:
        """On a task a thread first, which warms up and chooses how to run; then on more, while that is quick."""
        if name not in self._known:
            tasks = TaskSet(self.tasks[: torch.get_num_threads()])
            seconds, count, warm = _timed(run, tasks), len(tasks), False
            while seconds < SECONDS:
                if seconds < SECONDS / 4 and len(tasks) < len(self.tasks):
                    tasks = TaskSet(self.tasks[: 8 * len(tasks)])
                    seconds, count = 0.0, 0
                elif not warm:
                    seconds, count = 0.0, 0
                warm = True
                seconds, count = seconds + _timed(run, tasks), count + len(tasks)
            self._known[name] = seconds / count * self.scale
        return self._known[name]


def _timed(run: Callable[[TaskSet], object], tasks: TaskSet) -> float:
    start = time.perf_counter()
    run(tasks)
    return time.perf_counter() - start
