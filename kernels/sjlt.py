"""x Pᵀ with the sparse Johnson–Lindenstrauss matrix P: the twin of csrc/cpu/sjlt.cpp, bit for bit.

Sums without atomics: where the CPU scatters each column of x into its s places, a program here gathers, for each
of its outputs, the columns that were drawn for it, in order. For that the places are drawn and sorted, and x is
transposed, so that a column of all rows is read together. Memory: x once more, and 16·s bytes a column.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import words
from tlxml_fast.ops.philox import Stream

COLUMNS = 512  # whose places a program draws
OUTPUTS, ROWS = 4, 128  # of a program's sums
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


@triton.jit(do_not_specialize=["d"])
def _gather(
    columns,  # [q, m]: x transposed
    keys,  # [s·q], sorted
    starts,  # [d + 1]: where the keys of each output begin
    out,  # [m, d]
    m, d, scale: tl.float64, OUTPUTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    begin = tl.load(starts + r, mask=r < d, other=0)
    count = tl.load(starts + r + 1, mask=r < d, other=0) - begin
    total = tl.zeros((OUTPUTS, ROWS), out.dtype.element_ty)
    for t in range(tl.max(count, 0)):
        key = tl.load(keys + begin + t, mask=t < count, other=0)
        i = (key & 0xFFFFFFFF) >> 1
        inside = (t < count)[:, None] & (row < m)[None, :]
        column = tl.load(columns + i[:, None] * m + row[None, :], mask=inside, other=0.0)
        total += tl.where((key & 1)[:, None] == 1, -column, column)
    at = out + row[None, :].to(tl.int64) * d + r[:, None]
    tl.store(at, total * scale.to(total.dtype), mask=(r < d)[:, None] & (row < m)[None, :])


def sjlt(x: Tensor, out: Tensor, m: int, q: int, d: int, s: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], out [m, d]."""
    keys = torch.empty(s, q, dtype=torch.int64, device=x.device)
    fours = triton.cdiv(s, 4)
    _draw[(triton.cdiv(q, COLUMNS), fours)](keys, q, d, seed, s, int(Stream.sjlt), COLUMNS, num_warps=4)
    keys = keys.flatten().sort().values
    starts = torch.searchsorted(keys, torch.arange(d + 1, device=x.device) << 32)
    for first in range(0, m, rows := max(ROWS, AT_ONCE // q)):
        part = x[first : first + rows].T.contiguous()
        grid = (triton.cdiv(d, OUTPUTS), triton.cdiv(part.shape[1], ROWS))
        _gather[grid](
            part, keys, starts, out[first : first + rows], part.shape[1], d, 1 / math.sqrt(s), OUTPUTS, ROWS,
            num_warps=4,
        )  # fmt: skip


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, s, made = 1024, 111_936, 2048, 4, []
    for dtype in (torch.float32, torch.float64):
        unit = "fp64" if dtype == torch.float64 else "fp32"
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        name = f"sjlt/sjlt/{unit}/s{s}"
        made += drawn(name, sjlt, x, out, m, q, d, s, 0, flops=m * q * s, unit=unit, padded=False)
    return made
