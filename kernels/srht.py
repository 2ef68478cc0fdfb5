"""x Pᵀ with P = S H D / √d, the subsampled randomised Hadamard transform: the twin of csrc/cpu/srht.cpp.

Two launches. In the first a program multiplies the signs into a block of 4,096 columns of one row and transforms
it: as a cube of 16 × 16 × 16 along each axis in turn, since the Hadamard matrix of a block is a Kronecker product.
In the second, of the levels above, only the rows that were sampled are added up. Memory: one number for each of x,
its blocks full.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import parity, words
from tlxml_fast.ops.philox import Stream
from tlxml_fast.ops.srht import BLOCK

SIDE = round(BLOCK ** (1 / 3))
OUTPUTS = 512  # of a program of the second launch
AT_ONCE = 1 << 28  # numbers in blocks


@triton.jit
def _along_last(cube, H, SIDE: tl.constexpr):
    """The cube with its last axis transformed, which then is the first."""
    square = tl.reshape(cube, (SIDE * SIDE, SIDE))
    square = tl.dot(square, H, input_precision="ieee", out_dtype=square.dtype)
    return tl.permute(tl.reshape(square, (SIDE, SIDE, SIDE)), (2, 0, 1))


@triton.jit(do_not_specialize=["seed"])
def _transform(
    x,  # [m, q]
    blocks,  # [m, ⌈q/SIDE³⌉, SIDE³]
    q, many, seed: tl.int64, STREAM: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64) // many, tl.program_id(0) % many
    a = tl.arange(0, SIDE)
    at = tl.arange(0, SIDE * SIDE)[:, None] * SIDE + a[None, :]
    i = block * SIDE * SIDE * SIDE + at
    numbers = tl.load(x + row * q + i, mask=i < q, other=0.0)
    w0, w1, w2, w3 = words(seed, STREAM, i // 128, 0)
    k = i // 32 % 4
    w = tl.where(k == 0, w0, tl.where(k == 1, w1, tl.where(k == 2, w2, w3)))
    numbers = tl.where((w >> (i % 32).to(tl.uint32)) & 1 == 1, -numbers, numbers)
    H = (1 - 2 * parity(a[:, None] & a[None, :])).to(numbers.dtype)
    cube = tl.reshape(numbers, (SIDE, SIDE, SIDE))
    for _ in tl.static_range(3):
        cube = _along_last(cube, H, SIDE)
    tl.store(blocks + (row * many + block) * SIDE * SIDE * SIDE + at, tl.reshape(cube, (SIDE * SIDE, SIDE)))


@triton.jit(do_not_specialize=["d"])
def _sample(
    blocks,  # [m, many, BLOCK]
    rows,  # [d]
    out,  # [m, d]
    many, d, scale: tl.float64, BLOCK: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    r = tl.load(rows + j, mask=j < d, other=0)
    place, above = r % BLOCK, (r // BLOCK).to(tl.int32)
    total = tl.zeros((OUTPUTS,), out.dtype.element_ty)
    for b in range(many):
        number = tl.load(blocks + (row * many + b) * BLOCK + place, mask=j < d, other=0.0)
        total += tl.where(parity(above & b) == 1, -number, number)
    tl.store(out + row * d + j, total * scale.to(total.dtype), mask=j < d)


def srht(x: Tensor, rows: Tensor, out: Tensor, m: int, q: int, d: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], rows [d], out [m, d]."""
    many = triton.cdiv(q, BLOCK)
    at_once = min(m, max(1, AT_ONCE // (many * BLOCK)))
    blocks = torch.empty(at_once, many, BLOCK, dtype=x.dtype, device=x.device)
    for first in range(0, m, at_once):
        part, result = x[first : first + at_once], out[first : first + at_once]
        _transform[(len(part) * many,)](
            part, blocks, q, many, seed, int(Stream.srht_signs), SIDE, num_warps=4
        )
        _sample[(len(part), triton.cdiv(d, OUTPUTS))](
            blocks, rows, result, many, d, 1 / math.sqrt(d), BLOCK, OUTPUTS, num_warps=4
        )


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, made = 1024, 111_936, 2048, []
    for dtype in (torch.float32, torch.float64):
        unit = "fp64" if dtype == torch.float64 else "fp32"
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        rows = meta(d, dtype=torch.int64)
        flops = 3 * 2 * m * q * SIDE
        made += drawn(
            f"srht/srht/{unit}", srht, x, rows, out, m, q, d, 0, flops=flops, unit=unit, padded=False
        )
    return made
