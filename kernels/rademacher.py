"""x Pᵀ with dense signs P that are never in memory: the twin of csrc/cpu/rademacher.cpp.

A product whose right-hand tiles are made of Philox's bits: a program has a tile of the result and walks along
the columns of x, 128 of them to a place of the generator. Flops are 2·m·q·d; signs are drawn again for every 64
rows, an eightieth of that work.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import words
from tlxml_fast.kernels.target import all_registers
from tlxml_fast.ops.philox import Stream

ROWS, OUTPUTS, DEPTH = 64, 64, 16


# m may not be specialised: whether it is a multiple of 16 must not decide layouts, and with them the order of sums.
@triton.jit(do_not_specialize=["m", "seed"])
def _rademacher(
    x,  # [m, q]
    out,  # [m, d]
    m, q, d, seed: tl.int64, scale: tl.float64, STREAM: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(d, OUTPUTS)
    row = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)
    r = tl.program_id(0) % tiles * OUTPUTS + tl.arange(0, OUTPUTS)
    x += row.to(tl.int64)[:, None] * q
    inside = row < m
    total = tl.zeros((ROWS, OUTPUTS), out.dtype.element_ty)
    for first in range(0, q, 128):
        w0, w1, w2, w3 = words(seed, STREAM, first // 128, r)
        for piece in range(128 // DEPTH):
            k = piece * DEPTH + tl.arange(0, DEPTH)
            word = tl.where(
                k < 32, w0[:, None], tl.where(k < 64, w1[:, None], tl.where(k < 96, w2[:, None], w3[:, None]))
            )
            left = tl.load(
                x + (first + k)[None, :], mask=inside[:, None] & (first + k < q)[None, :], other=0.0
            )
            right = 1 - 2 * ((word >> (k % 32)[None, :].to(tl.uint32)) & 1).to(tl.int32)
            total = tl.dot(left, right.to(left.dtype).T, total, input_precision="ieee", out_dtype=total.dtype)
    at = out + row.to(tl.int64)[:, None] * d + r[None, :]
    tl.store(at, total * scale.to(total.dtype), mask=inside[:, None] & (r < d)[None, :])


def rademacher(x: Tensor, out: Tensor, m: int, q: int, d: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], out [m, d]."""
    _rademacher[(triton.cdiv(m, ROWS) * triton.cdiv(d, OUTPUTS),)](
        x, out, m, q, d, seed, 1 / math.sqrt(d), int(Stream.rademacher), ROWS, OUTPUTS, DEPTH,
        **all_registers({"num_warps": 4, "num_stages": 2}),
    )  # fmt: skip


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, made = 1024, 111_936, 2048, []
    for dtype in (torch.float32, torch.float64):
        unit = "fp64" if dtype == torch.float64 else "fp32"
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        made += drawn(
            f"rademacher/rademacher/{unit}", rademacher, x, out, m, q, d, 0, flops=2 * m * q * d, unit=unit
        )
    return made
