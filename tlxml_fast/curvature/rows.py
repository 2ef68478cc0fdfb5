"""A curvature as rows: C = RᵀR, known by the blocks of R."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..distributed import World
from ..profiling import span
from .gram import gram

# Columns of R in one product of the Gram matrix, which is summed in float64 between them.
COLUMNS = 8192


class Rows:
    """R [N, q] with C = RᵀR: row n of a block is √scale times what the block holds.

    blocks  this process's, [r, q] each, in the order of the tasks; in memory, or mapped from a store
    scale   1/M, so that blocks need not change when tasks are added
    like    a tensor of the dtype and on the device of all processes' blocks, for one that has none

    Products are in float64 whatever the blocks are in: an inverse is refined and certified by them.
    """

    def __init__(
        self,
        blocks: Sequence[Tensor],
        q: int,
        scale: float,
        world: World | None = None,
        like: Tensor | None = None,
    ):
        self.blocks, self.q, self.scale, self.world = blocks, q, scale, world or World()
        self._like = blocks[0][:0] if len(blocks) else torch.empty(0) if like is None else like[:0]
        lengths = [len(block) for block in blocks]
        self._mine, self._widest = sum(lengths), max(lengths, default=0)
        counts = self.world.cat(torch.tensor([self._mine], device=self._device))
        self.N = int(counts.sum())
        """How many rows there are, all processes' together."""
        self._first = int(counts[: self.world.rank].sum())

    def push(self, V: Tensor) -> Tensor:
        """V Rᵀ: [K, q] → [K, N]; 2KNq flops."""
        mine = V.new_empty(self._mine, len(V))
        start = 0
        for block in self._each("R v", len(V)):
            torch.mm(block, V.mT, out=mine[start : start + len(block)])
            start += len(block)
        return self.world.cat(mine.mul_(self.scale**0.5)).mT

    def pull(self, W: Tensor) -> Tensor:
        """W R: [K, N] → [K, q]; 2KNq flops."""
        total = W.new_zeros(len(W), self.q)
        start = self._first
        for block in self._each("Rᵀ w", len(W)):
            total.addmm_(W[:, start : start + len(block)], block)
            start += len(block)
        return self.world.sum(total * self.scale**0.5)

    def squares(self) -> Tensor:
        """The diagonal of C, [q]."""
        total = torch.zeros(self.q, dtype=torch.float64, device=self._device)
        for block in self._each("squares", 1):
            total += block.square().sum(0)
        return self.world.sum(total * self.scale)

    def dense(self) -> Tensor:
        """C, [q, q] in float64; Nq² flops."""
        total = torch.zeros(self.q, self.q, dtype=torch.float64, device=self._device)
        for block in self.blocks:
            gram(block, total)
        return self.world.sum(total * self.scale)

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """R diag(w) Rᵀ, [N, N] in float64; w > 0 [q], 1 unless given. N²q flops.

        By columns of R, of which every process takes some for all rows.
        """
        total = torch.zeros(self.N, self.N, dtype=torch.float64, device=self._device)
        size = self.world.size
        for start in range(0, self.q, COLUMNS * size):
            stop = min(self.q, start + COLUMNS * size)
            each = [World(rank, size).share(stop - start) for rank in range(size)]
            share = [slice(part.start, part.stop) for part in each]
            columns = self._columns(slice(start, stop))
            if weights is not None:
                columns *= weights[start:stop].sqrt()
            mine = self.world.columns(columns, share)
            if mine.shape[1]:
                gram(mine.mT, total)
        return self.world.sum(total).mul_(self.scale)

    def _columns(self, columns: slice) -> Tensor:
        """Some columns of all blocks, one block after another: a mapped one is in memory while it is looked at."""
        joined = self._exact(self._like).new_empty(self._mine, columns.stop - columns.start)
        start = 0
        for block in self.blocks:
            joined[start : start + len(block)] = block[:, columns]
            start += len(block)
        return joined

    @staticmethod
    def _exact(x: Tensor) -> Tensor:
        """In a dtype that products are made in."""
        return x.float() if x.dtype == torch.bfloat16 else x

    def _each(self, name: str, K: int) -> Iterator[Tensor]:
        """The blocks in float64, all in one buffer: each is there until the next is asked for.

        Small results made between large temporaries would leave holes that the next temporary does not fit into.
        """
        wide = torch.empty(self._widest, self.q, dtype=torch.float64, device=self._device)
        for block in self.blocks:
            with span(name, 2 * K * block.numel(), block.nbytes, dtype=torch.float64):
                yield wide[: len(block)].copy_(block)

    @property
    def _device(self) -> torch.device:
        return self._like.device
