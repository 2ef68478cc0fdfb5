"""x Pᵀ with the sparse Johnson–Lindenstrauss matrix P: the twin of csrc/cpu/sjlt.cpp, bit for bit.

Sums without atomics: where the CPU scatters each column of x into its s places, a program here gathers, for each
of its outputs, the columns that were drawn for it, in order. For that the places are drawn and sorted, once for all
calls that follow with the same matrix, and x is transposed in blocks of rows, so that a column of a block is read
together. x is read once, written once, and read s times, mostly from the second-level cache: the outputs of a block
go through its columns at the same pace. Memory: x once more, and 4·s bytes a column.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import words
from tlxml_fast.ops.philox import Stream

COLUMNS = 512  # whose places a program draws
TILE = 64  # columns that a program transposes
SUMS = {torch.float32: (4, 128), torch.float64: (8, 32)}  # outputs and rows of a program's sums
AT_ONCE = 1 << 28  # numbers of x that are transposed


@triton.jit(do_not_specialize=["q", "d", "seed"])
def _draw(
    keys,  # [s, q] int64: r · 2³² + 2i + (1 for a minus), for the place r of column i in each block
    q, d, seed: tl.int64, S: tl.constexpr, STREAM: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    four = tl.program_id(1)
    w0, w1, w2, w3 = words(seed, STREAM, i, four)
    for k in tl.static_range(4):
        b = (4 * four + k).to(tl.int64)
        w = w0 if k == 0 else w1 if k == 1 else w2 if k == 2 else w3
        start = b * d // S
        r = start + ((w >> 1).to(tl.int64) * ((b + 1) * d // S - start) >> 31)
        key = (r << 32) + 2 * i.to(tl.int64) + (w & 1).to(tl.int64)
        tl.store(keys + b * q + i, key, mask=(i < q) & (b < S))


@triton.jit(do_not_specialize=["m"])
def _transpose(
    x,  # [m, q]
    columns,  # [⌈m/ROWS⌉, q, ROWS]: a block of rows after the other, transposed; rows from m on are zero
    m, q, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = block * ROWS + tl.arange(0, ROWS)
    inside = (row < m)[:, None] & (i < q)[None, :]
    tile = tl.load(x + row[:, None] * q + i[None, :], mask=inside, other=0.0)
    at = (block * q + i)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    tl.store(columns + at, tl.trans(tile), mask=(i < q)[:, None])


@triton.jit(do_not_specialize=["m", "d"])
def _gather(
    columns,  # [⌈m/ROWS⌉, q, ROWS]
    keys,  # [s·q] uint32s: 2i + (1 for a minus), by output
    starts,  # [d + 1]: where the keys of each output begin
    out,  # [m, d]
    m, q, d, scale: tl.float64, OUTPUTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)
    lane = tl.arange(0, ROWS)[None, :]
    columns += tl.program_id(1).to(tl.int64) * q * ROWS + lane
    begin = tl.load(starts + r, mask=r < d, other=0)
    count = tl.load(starts + r + 1, mask=r < d, other=0) - begin
    total = tl.zeros((OUTPUTS, ROWS), out.dtype.element_ty)
    for t in tl.range(0, tl.max(count, 0), loop_unroll_factor=4):
        key = tl.load(keys + begin + t, mask=t < count, other=0).to(tl.uint32, bitcast=True)[:, None]
        column = tl.load(columns + (key >> 1).to(tl.int64) * ROWS, mask=(t < count)[:, None], other=0.0)
        total += tl.where(key & 1 == 1, -column, column)
    row = tl.program_id(1) * ROWS + lane
    at = out + row.to(tl.int64) * d + r[:, None]
    tl.store(at, total * scale.to(total.dtype), mask=(r < d)[:, None] & (row < m))


@lru_cache(maxsize=1)  # rows mostly come in chunks, for one matrix
def _places(q: int, d: int, s: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The keys of all outputs, and where those of each begin."""
    keys = torch.empty(s, q, dtype=torch.int64, device=device)
    _draw[(triton.cdiv(q, COLUMNS), triton.cdiv(s, 4))](
        keys, q, d, seed, s, int(Stream.sjlt), COLUMNS, num_warps=4
    )
    keys = keys.flatten().sort().values
    starts = torch.searchsorted(keys, torch.arange(d + 1, device=device) << 32)
    return keys.to(torch.int32), starts


def sjlt(x: Tensor, out: Tensor, m: int, q: int, d: int, s: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], out [m, d]."""
    keys, starts = _places(q, d, s, seed, x.device)
    outputs, rows = SUMS[x.dtype]
    for first in range(0, m, step := max(1, AT_ONCE // (q * rows)) * rows):
        part = x[first : first + step]
        blocks = triton.cdiv(len(part), rows)
        columns = x.new_empty(blocks, q, rows)
        _transpose[(triton.cdiv(q, TILE), blocks)](part, columns, len(part), q, rows, TILE, num_warps=4)
        _gather[(triton.cdiv(d, outputs), blocks)](
            columns, keys, starts, out[first : first + step], len(part), q, d, 1 / math.sqrt(s), outputs, rows,
            num_warps=4,
        )  # fmt: skip


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, s, made = 1024, 111_936, 2048, 4, []
    for dtype in (torch.float32, torch.float64):
        unit = "fp64" if dtype == torch.float64 else "fp32"
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        name = f"sjlt/sjlt/{unit}/s{s}"
        _places.cache_clear()  # so that its launch is recorded
        made += drawn(name, sjlt, x, out, m, q, d, s, 0, flops=m * q * s, unit=unit, padded=False)
    return made
