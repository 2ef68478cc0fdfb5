"""Scores a tile at a time, of more training gradients than memory holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import TlxError
from .gemm import ROWS_OF_A, ROWS_OF_B, mm_nt
from .parallel import task_threads
from .profiling import span

STORED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# Bytes of gradients that are converted and multiplied at once, so that they are in cache when the product reads them,
# and of scores that are handed on at once: few calls, and they too are in cache. A device has to be filled.
CACHED = TILE = 2 << 20
DEVICE_CACHED = DEVICE_TILE = 256 << 20


class Tile(NamedTuple):
    """Scores of all test directions for consecutive training tasks."""

    first: int
    """The column of the first."""
    values: Tensor
    """[n, m], in the dtype of the directions."""


def tiles(X: Tensor, blocks: Iterable[Tensor], first: int = 0) -> Iterator[Tile]:
    """I = −X·gᵀ of every training gradient g, in the order of the gradients, as tiles that are never all in memory.

    On a CPU a score's bits depend on its direction, its gradient and `gemm.library` alone: not on how gradients are cut
    into blocks, on the other directions, or on the number of threads.

    2ndN flops for N gradients; each is read once, converted in cache, and multiplied by one thread while the others
    have the next ones. While the caller has a tile torch runs on one thread in it, for as long as the iteration lasts.
    At most 2·threads + 1 tiles of 2 MiB are in memory, and 2 MiB of gradients for each thread, or 48 columns where that
    is more. Pages of mapped blocks stay resident as long as the block lives: let `blocks` map each as it is asked for
    (`TensorFiles`), and only what is worked on is.

    Args:
        X: [n, d], float32 or float64: H⁺∇L_i of the test tasks.
        blocks: gradients [m_b, d] of any sizes, float32, bfloat16 or float16; float64 too where X is.
        first: the column of the first gradient.

    Raises:
        TlxError: shapes or dtypes do not fit, when the block is reached (`check_blocks` checks all before).
    """
    _check_directions(X)
    product = _Product(X)
    with task_threads(parallel=X.device.type == "cpu") as in_order:
        yield from in_order(product, _parts(X, blocks, first, product.columns))


def check_blocks(X: Tensor, blocks: Iterable[Tensor]) -> tuple[int, set[torch.dtype]]:
    """How many training gradients there are, and their dtypes; TlxError where a block does not fit the directions X."""
    _check_directions(X)
    rows, dtypes = 0, set()
    for i, block in enumerate(blocks):
        _check_block(X, block, i)
        rows += len(block)
        dtypes.add(block.dtype)
    return rows, dtypes


class _Product:
    """The tile of a few gradients; for several threads at once."""

    def __init__(self, X: Tensor):
        n, d = X.shape
        cached, tile = (CACHED, TILE) if X.device.type == "cpu" else (DEVICE_CACHED, DEVICE_TILE)
        column, row = n * X.itemsize, d * X.itemsize
        self.n = n
        self.negative = X.new_zeros(_up(n, ROWS_OF_A), d)
        self.negative[:n] = -X.detach()
        self.rows = max(min(cached // row, tile // column) // ROWS_OF_B, 1) * ROWS_OF_B
        self.columns = max(tile // column // self.rows, 1) * self.rows
        self._local = threading.local()

    def __call__(self, part: tuple[int, Tensor]) -> Tile:
        first, gradients = part
        d = self.negative.shape[1]
        scores = self.negative.new_empty(self.n, len(gradients))
        with span("score tiles", flops=2 * self.n * d * len(gradients), dtype=self.negative.dtype):
            for at in range(0, len(gradients), self.rows):
                some = gradients[at : at + self.rows]
                product = mm_nt(self.negative, self._padded(some))
                scores[:, at : at + len(some)] = product[: self.n, : len(some)]
        return Tile(first, scores)

    def _padded(self, gradients: Tensor) -> Tensor:
        """In the dtype of X, on its device, a multiple of ROWS_OF_B of them; columns of the rest are not used."""
        count, ready = len(gradients), self.negative
        as_is = gradients.dtype == ready.dtype and gradients.device == ready.device
        if as_is and gradients.is_contiguous() and count % ROWS_OF_B == 0:
            return gradients
        if not hasattr(self._local, "buffer"):
            self._local.buffer = ready.new_zeros(self.rows, ready.shape[1])
        buffer = self._local.buffer[: _up(count, ROWS_OF_B)]
        with span("gradients to cache", bytes=gradients.nbytes):
            buffer[:count] = gradients.to(ready.device)
        return buffer


def _parts(X: Tensor, blocks: Iterable[Tensor], first: int, columns: int) -> Iterator[tuple[int, Tensor]]:
    """The gradients of one tile after another, and the column of the first of each."""
    for i, block in enumerate(blocks):
        _check_block(X, block, i)
        for part in block.split(columns) if len(block) else ():
            yield first, part
            first += len(part)


def _check_directions(X: Tensor) -> None:
    if X.ndim != 2 or 0 in X.shape or X.dtype not in (torch.float32, torch.float64):
        raise TlxError(
            f"solved directions are [tests, d], float32 or float64, not {X.dtype} of shape {tuple(X.shape)}"
        )


def _check_block(X: Tensor, block: Tensor, i: int) -> None:
    if block.ndim != 2 or block.shape[1] != X.shape[1]:
        raise TlxError(
            f"block {i} of the training gradients has shape {tuple(block.shape)}, expected [tasks, {X.shape[1]}]"
        )
    if block.dtype not in STORED or block.itemsize > X.itemsize:
        raise TlxError(
            f"block {i} of the training gradients is {block.dtype}, which {X.dtype} directions do not take"
        )


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
