"""A curvature at given tasks: what an inverse is fitted to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import memory
from ..compression import Compression
from ..errors import CurvatureError
from ..kept import Checkpoints, Column, Kept, Results, Sum, Tensors, digest, hashed
from ..linearize import Linearization
from ..linearize.buckets import Buckets
from ..linearize.shards import Shards
from ..profiling import span
from ..progress import progress_bar
from .base import Curvature, Way
from .gram import gram
from .rows import Rows

# A matrix that should be symmetric, and is not by this share of its largest entry, was not computed right.
ASYMMETRY = 1e-3


@dataclass
class CurvatureOperator:
    """C + diag δ with C = (1/M) Σ_t C_t over the M tasks of `shards`.

    compression  P [k, q]: C is P C Pᵀ, of its rows, and q is k in all that follows. What an inverse makes of gradients
                 and rows depends on their inner products alone, and these P keeps, in expectation
    kept         where rows and factors are kept
    """

    curvature: Curvature
    shards: Shards
    decay: Tensor
    """δ for each of the q meta-parameters, [q]; uniform where there is a compression."""
    compression: Compression | None = None
    kept: Kept = field(default_factory=Kept)
    progress: bool = False
    decisions: list[str] = field(default_factory=list)
    """How the matrix of each shape was assembled, and why so."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What its phases took."""
    doing: str | None = None
    """Beside the bar of a product: what it is for."""

    @property
    def q(self) -> int:
        """The number of meta-parameters, or what they are compressed to."""
        return len(self.decay)

    @property
    def dtype(self) -> torch.dtype:
        """The precision the tasks are computed in."""
        return self.shards.first.dtype

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.shards.first.device

    @property
    def by_rows(self) -> bool:
        """Whether C is known by its rows alone."""
        return self.curvature.by_rows or self.compression is not None

    def with_curvature(self, curvature: Curvature) -> CurvatureOperator:
        """Another curvature at the same tasks."""
        return replace(self, curvature=curvature, decisions=[])

    def factored(
        self, name: str, compute: Callable[[], Tensors], settings: Mapping[str, Any] | None = None
    ) -> Tensors:
        """What `compute` makes of the matrix, kept where there is a store; on its device. All processes call it.

        settings  JSON of what else it depends on
        """
        depends = {**self._made_of, **(settings or {})}
        found, _ = self.kept.whole(f"{name}-{digest(depends)}", depends, lambda: (compute(), {}))
        return {part: x.to(self.device) for part, x in found.items()}

    def checkpoints(self, name: str, settings: Mapping[str, Any], *given: Tensor) -> Checkpoints:
        """Where an iteration with products of the matrix keeps its state. All processes call it."""
        return self.kept.checkpoints(name, {**self._made_of, **settings}, *given)

    # ---- products and rows --------------------------------------------------------------------------

    def product(self, V: Tensor) -> Tensor:
        """(C + diag δ) v_k: [K, q] → [K, q], float64; one pass over all tasks for all vectors.

        By R where C is known by its rows, in float64; else in the precision of the tasks.
        """
        if self.by_rows:
            rows = self.rows()
            return rows.pull(rows.push(V)) + self.decay * V
        total, narrow = torch.zeros_like(V), V.to(self.dtype)
        with self._bar(f"{self.curvature.name} product", one_of_many=True) as advance:
            sum_ = Sum({**self._described, "sum": "product"}, total, (V,))
            for buckets in self.kept.adding(sum_, self.shards, advance):
                for lin in buckets.linearizations:
                    total += self.curvature.total(lin, narrow)
                    advance(lin.T, self.doing)
        return self.shards.world.sum(total) / len(self.shards) + self.decay * V

    def rows(self) -> Rows:
        """R with C = RᵀR; computed at the first call. CurvatureError where the curvature has no rows."""
        return self._rows

    @cached_property
    def _rows(self) -> Rows:
        lin = self.shards.first
        count = self.curvature.row_count(lin)  # refuses a curvature that has none
        if not self.kept.on_disk:
            width = self.q * self._storage.itemsize
            memory.require(
                self.shards.my_tasks * count * width,
                f"keeping {count} rows of {self.q:,} numbers for each of {self.shards.my_tasks:,} tasks in memory, "
                "rather than in a store,",
            )
        results, start = self._results, time.perf_counter()
        with self._bar(f"{self.curvature.name} rows") as advance:
            for found in results:
                advance(len(found["rows"]), known=self.kept.found)
        self.seconds["rows"] = time.perf_counter() - start
        like = torch.empty(0, dtype=self._storage, device=self.device)
        return Rows(Column(results, "rows", 2), self.q, 1 / len(self.shards), self.shards.world, like)

    @property
    def _storage(self) -> torch.dtype:
        return self.dtype if self.compression is None else self.compression.storage

    @property
    def _results(self) -> Results:
        return Results(self.kept, f"rows-{digest(self._described)}", self.shards, self._rows_of)

    @property
    def _described(self) -> dict[str, Any]:
        compression = None if self.compression is None else self.compression.describe()
        return {"curvature": self.curvature.describe(), "compression": compression}

    @property
    def _made_of(self) -> dict[str, Any]:
        return {**self._described, "weight decay": hashed(self.decay)}

    def _rows_of(self, buckets: Buckets) -> Tensors:
        """Every task's rows, [B, r, q]; zeros, which change nothing, where one has fewer than another."""

        each = buckets.gather(self.curvature.rows, lambda done: None)
        rows = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
        if self.compression is not None:
            rows = self.compression.store(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        return {"rows": rows}

    # ---- the matrix ---------------------------------------------------------------------------------

    def dense(self) -> Tensor:
        """C + diag δ in float64, [q, q], each shape assembled the cheapest way that works.

        Raises CurvatureError if it is not finite, or not symmetric.
        """
        total = torch.zeros(self.q, self.q, dtype=torch.float64, device=self.device)
        if self.by_rows:
            with self._bar(f"{self.curvature.name} rows") as advance:
                for i in range(len(self._results)):  # each is dropped when it has been added
                    found = self._results[i]["rows"]
                    gram(found.flatten(0, 1), total)
                    advance(len(found), known=self.kept.found)
        else:
            self._assemble(total)
        total = self.shards.world.sum(total) / len(self.shards)
        if not torch.isfinite(total).all():
            raise CurvatureError(f"the {self.curvature.name} matrix is not finite")
        scale = total.abs().max().clamp_min(torch.finfo(total.dtype).tiny)
        asymmetry = float((total - total.mT).abs().max() / scale)
        if asymmetry > ASYMMETRY:
            raise CurvatureError(
                f"the {self.curvature.name} matrix is not symmetric (by {asymmetry:.1e} of its largest entry): the "
                "model has a layer whose higher derivatives are wrong"
            )
        return (total + total.mT) / 2 + self.decay.double().diag()

    def _assemble(self, total: Tensor) -> None:
        ways: dict[object, str] = {}
        with self._bar(f"{self.curvature.name} matrix") as advance:
            sum_ = Sum({**self._described, "sum": "matrix"}, total)
            for buckets in self.kept.adding(sum_, self.shards, advance):
                for lin in buckets.linearizations:
                    shape = lin.tasks[0].shape
                    way = self._cheapest(lin, ways.get(shape))
                    ways[shape] = way.name
                    with lin.task_threads(way.side_by_side, join=sum) as each:
                        for block, matrix in zip(lin.blocks, each(way.assemble, lin.blocks), strict=True):
                            with span(
                                "sum of matrices", total.numel(), 24 * total.numel(), dtype=total.dtype
                            ):
                                total += matrix
                            advance(len(lin.episodes[block]))

    def _cheapest(self, lin: Linearization, known: str | None) -> Way:
        """The cheapest way that works; the one known of other tasks of that shape, if any."""
        shape, failures = lin.tasks[0].shape, []
        for way in sorted(self.curvature.ways_to_assemble(lin), key=lambda way: way.passes):
            if known is not None and way.name != known:
                continue
            failure = None if known else _failure(lin, way)
            if failure is None:
                if not known:
                    self.decisions.append("; ".join([f"{shape}: {way.name}", *failures]))
                return way
            failures.append(f"{way.name} do not work here ({failure})")
        raise CurvatureError(
            f"no way to assemble the {self.curvature.name} matrix works: {'; '.join(failures)}"
        )

    def _bar(self, description: str, one_of_many: bool = False):
        return progress_bar(description, self.shards.my_tasks, self.progress, one_of_many)


def _failure(lin: Linearization, way: Way) -> str | None:
    """Why the model cannot go this way; None if it can."""
    try:
        with lin.task_threads(way.side_by_side) as each:
            list(each(lambda _: way.sample(), lin.blocks[:1]))
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None
