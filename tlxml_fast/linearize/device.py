"""The engine on a device: chunks of tasks and vectors by its free memory, halved when that runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

from ..learners import Learner
from ..parallel import Map
from ..task import TaskSet
from .base import BackendReport, Join
from .batch import Batch
from .chunk import Chunk
from .compiled import CompiledLinearization
from .feed import Feed
from .replay import Replay


class DeviceLinearization(CompiledLinearization):
    """Blocks one after another, as many tasks times vectors at once as fit; the report's decisions have the chunk.

    Where a sum over tasks is cut depends on the memory that is free, and the sum on that to rounding. With `graphs`
    products of tasks that are one chunk are recorded as CUDA graphs, one for each number of vectors, and replayed. With
    `prefetch` tasks stay on the host, and a block is copied while the one before it is worked on.
    """

    of_omega = (*CompiledLinearization.of_omega, "_replays")

    def __init__(
        self,
        learner: Learner,
        tasks: TaskSet,
        dtype: torch.dtype | None,
        report: BackendReport,
        precision: str = "fp32",
        graphs: bool = False,
        prefetch: bool = False,
    ):
        self.prefetch = prefetch
        super().__init__(learner, tasks, dtype, report, precision)
        self.threads_inside = True
        self.graphs = graphs
        self.feed = Feed(self.episodes, self.device) if prefetch else None
        self.report.decisions |= {
            "precision": precision,
            "graphs": "recorded" if graphs else "none",
            "tasks": "copied block by block" if prefetch else "on the device",
        }
        self._latest: tuple[slice, Batch] | None = None

    @property
    def home(self) -> torch.device:
        """The host where blocks are prefetched from it, else the device."""
        return torch.device("cpu") if self.prefetch else self.device

    @property
    def block_size(self) -> int:
        """The chunk's tasks."""
        return self.chunk.tasks

    @property
    def gradient_blocks(self) -> list[slice]:
        """As those of products."""
        return self.blocks

    def vectors_at_once(self) -> int:
        """The chunk's."""
        return self.chunk.vectors

    @property
    def _vectors(self) -> int:
        return self.chunk.vectors

    @cached_property
    def chunk(self) -> Chunk:
        """What the device takes at once; a task's own values (activations, x̂, slopes, winners) count as 4 vectors."""
        one = Batch([self.episodes[0].to(self.device)])
        numbers = self.omega.element_size() * self.passes.numbers_a_vector(self.omega, one)
        chunk = Chunk.of(self.device, numbers, 4 * numbers)
        chunk.tasks = min(chunk.tasks, self.T)
        self.report.decisions["chunk"] = f"{chunk}: {chunk.why}"
        return chunk

    def prepare(self) -> None:
        """The chunk."""
        _ = self.chunk

    def at(self, omega: Tensor) -> DeviceLinearization:
        """The same at other meta-parameters; graphs have memory of their own, since they read it again."""
        moved = super().at(omega)
        if self.graphs:
            moved._latest = None
        return moved

    def gnvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k over the block, [K, q]."""
        return self._replayed("gnvp", super().gnvp_block, block, V, weights)

    def hvp_block(self, block: slice, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k over the block, [K, q]."""
        if self.passes.no_third_derivative() is not None:  # the reference runs, which no graph can hold
            return super().hvp_block(block, V, weights)
        return self._replayed("hvp", super().hvp_block, block, V, weights)

    @cached_property
    def _replays(self) -> dict[tuple[object, ...], tuple[Replay, Batch]]:
        """With the batch that each reads, and what passes keep of it."""
        return {}

    def release(self) -> None:
        """The block that was worked on last, and what passes kept of it; what graphs read stays."""
        self._latest = None
        if self.feed is not None:
            self.feed.release()

    def _replayed(self, name: str, product: Callable[..., Tensor], block: slice, *inputs: Tensor) -> Tensor:
        """The product of a block; of the only one, where graphs are asked for, by its graph."""
        if not self.graphs or len(self.blocks) > 1:
            return product(block, *inputs)
        key = (name, *(x.shape for x in inputs))
        if key not in self._replays:
            self._replays[key] = Replay(lambda *given: product(block, *given), *inputs), self._batch(block)
        replay, _ = self._replays[key]
        return replay(*inputs)

    @cached_property
    def logits(self) -> Tensor:
        """f, [T, n, C]."""
        return torch.cat([self._within_memory(self.logits_block, block, torch.cat) for block in self.blocks])

    def losses_and_gradients(self) -> tuple[Tensor, Tensor]:
        """One after the other, each within memory."""
        return self.losses(), self.gradients()

    def task_threads(self, side_by_side: bool = True, join: Join = torch.cat) -> AbstractContextManager[Map]:
        """One block after another, in parts where memory runs out."""
        self.prepare()

        def in_order(function: Callable[[slice], Tensor], blocks: Iterable[slice]) -> Iterator[Tensor]:
            return (self._within_memory(function, block, join) for block in blocks)

        return nullcontext(in_order)

    def _within_memory(self, function: Callable[[slice], Tensor], block: slice, join: Join) -> Tensor:
        """What `function` gives for a block, joined of as many parts as the chunk asks for by now."""
        parts: list[Tensor] = []
        start = block.start
        while start < block.stop:
            part = slice(start, min(block.stop, start + self.chunk.tasks))
            try:
                parts.append(function(part))
            except torch.OutOfMemoryError:
                self._halve()
                continue
            start = part.stop
        return parts[0] if len(parts) == 1 else join(parts)

    def _each(
        self, apply: Callable[[slice, slice], Tensor], K: int, side_by_side: bool = True
    ) -> Iterator[list[tuple[int, int, Tensor]]]:
        start = 0
        while start < self.T:
            block, step = slice(start, min(self.T, start + self.chunk.tasks)), self.chunk.vectors
            chunks = [slice(i, min(K, i + step)) for i in range(0, K, step)]
            try:
                row = [(k.start, k.stop, apply(block, k)) for k in chunks]
            except torch.OutOfMemoryError:
                self._halve()
                continue
            yield row
            start = block.stop

    def _halve(self) -> None:
        self.release()
        self._replays.clear()
        self.chunk.halve()
        self.report.decisions["chunk"] = f"{self.chunk}: {self.chunk.why}"
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _batch(self, block: slice) -> Batch:
        """The tasks of a block, with what passes keep of it, until it is another's turn."""
        if self._latest is None or self._latest[0] != block:
            self._latest = None  # free it before the next is made
            made = self.feed(block) if self.feed is not None else Batch(self.episodes[block], keeps=True)
            self._latest = (block, made)
        return self._latest[1]
