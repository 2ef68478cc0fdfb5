"""x Pᵀ with dense signs P that are never in memory: the twin of csrc/cpu/rademacher.cpp.

A product whose right-hand tiles are made of Philox's bits: a program has a tile of the result and walks along the
columns of x, a word of the generator for each of its outputs at a time. A float32 is the sum of three bfloat16s and
a sign is one, so that tensor cores make float32's products without an error: 6·m·q·d flops in bf16, 2·m·q·d in
float64. Signs are drawn again for every 64 rows, x is read again for every 128 outputs.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import words
from tlxml_fast.kernels.signs import times_signs
from tlxml_fast.kernels.target import all_registers
from tlxml_fast.ops.philox import Stream

ROWS, OUTPUTS, COLUMNS = 64, {torch.float32: 128, torch.float64: 64}, 32


# m may not be specialised: whether it is a multiple of 16 must not decide layouts, and with them the order of sums.
@triton.jit(do_not_specialize=["m", "seed"])
def _rademacher(
    x,  # [m, q]
    out,  # [m, d]
    m, q, d, seed: tl.int64, scale: tl.float64, STREAM: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(d, OUTPUTS)
    row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)
    r = tl.program_id(0) % tiles * OUTPUTS + tl.arange(0, OUTPUTS)
    i = tl.arange(0, COLUMNS)
    x += tl.minimum(row, m - 1).to(tl.int64)[:, None] * q + i[None, :]
    bit = i[:, None].to(tl.uint32)
    total = tl.zeros((ROWS, OUTPUTS), out.dtype.element_ty)
    word, next, third, last = words(seed, STREAM, 0, r[None, :])
    for first in range(0, q, COLUMNS):
        if first % 128 == 0:
            word, next, third, last = words(seed, STREAM, first // 128, r[None, :])
        else:
            word, next, third = next, third, last
        columns = tl.load(x + first, mask=(i < q - first)[None, :], other=0.0)
        total += times_signs(columns, tl.where((word >> bit) & 1 == 1, -1.0, 1.0))
    at = out + row.to(tl.int64)[:, None] * d + r[None, :]
    tl.store(at, total * scale.to(total.dtype), mask=(row < m)[:, None] & (r < d)[None, :])


def rademacher(x: Tensor, out: Tensor, m: int, q: int, d: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], out [m, d]."""
    outputs = OUTPUTS[x.dtype]
    _rademacher[(triton.cdiv(m, ROWS) * triton.cdiv(d, outputs),)](
        x, out, m, q, d, seed, 1 / math.sqrt(d), int(Stream.rademacher), ROWS, outputs, COLUMNS,
        **all_registers({"num_warps": 4, "num_stages": 3}),
    )  # fmt: skip


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, made = 1024, 111_936, 2048, []
    for dtype, unit, products in ((torch.float32, "bf16", 3), (torch.float64, "fp64", 1)):
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        name, flops = f"rademacher/rademacher/fp{8 * dtype.itemsize}", products * 2 * m * q * d
        made += drawn(name, rademacher, x, out, m, q, d, 0, flops=flops, unit=unit)
    return made
