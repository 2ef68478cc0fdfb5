"""x Pᵀ with P = S H D / √d, the subsampled randomised Hadamard transform: the twin of csrc/cpu/srht.cpp.

A program has a row of x and walks along its blocks of 4,096 columns: it multiplies the signs into one, transforms
it as a cube or a square along each axis, since the Hadamard matrix of a block is a Kronecker product, and adds up what
was sampled of it. x is read once for every 2,048 outputs, and nothing but the result is written.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.philox import parity, words
from tlxml_fast.kernels.signs import times_signs
from tlxml_fast.kernels.target import nvidia_architecture
from tlxml_fast.ops.philox import Stream
from tlxml_fast.ops.srht import BLOCK

OUTPUTS = 2048  # of a program, at most


@triton.jit
def _signed(numbers, block, seed, STREAM: tl.constexpr, BLOCK: tl.constexpr):
    """The numbers of a block with their signs, 128 of which come from one place of the generator."""
    w0, w1, w2, w3 = words(seed, STREAM, block * (BLOCK // 128) + tl.arange(0, BLOCK // 128), 0)
    word = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (BLOCK // 32,))
    bits = (word[:, None] >> tl.arange(0, 32)[None, :].to(tl.uint32)) & 1
    return tl.where(tl.reshape(bits, (BLOCK,)) == 1, -numbers, numbers)


@triton.jit(do_not_specialize=["d", "seed"])
def _srht(
    x,  # [m, q]
    rows,  # [d]
    out,  # [m, d]
    q, d, seed: tl.int64, scale: tl.float64, STREAM: tl.constexpr, BLOCK: tl.constexpr, AXES: tl.constexpr,
    SIDE: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    r = tl.load(rows + j, mask=j < d, other=0)
    place, above = (r % BLOCK).to(tl.int32), (r // BLOCK).to(tl.int32)
    a = tl.arange(0, SIDE)
    H = 1.0 - 2 * parity(a[:, None] & a[None, :])
    x += row * q
    total = tl.zeros((OUTPUTS,), out.dtype.element_ty)
    for block in range(tl.cdiv(q, BLOCK)):
        i = block * BLOCK + tl.arange(0, BLOCK)
        numbers = _signed(tl.load(x + i, mask=i < q, other=0.0), block, seed, STREAM, BLOCK)
        for _ in tl.static_range(AXES):  # the last axis, which then is the first
            numbers = tl.trans(times_signs(tl.reshape(numbers, (BLOCK // SIDE, SIDE)), H))
        number = tl.gather(tl.reshape(numbers, (BLOCK,)), place, 0)
        total += tl.where(parity(above & block) == 1, -number, number)
    tl.store(out + row * d + j, total * scale.to(total.dtype), mask=j < d)


class Shape(NamedTuple):
    """How many axes a block is given, and what a launch may use."""

    axes: int
    num_warps: int
    num_stages: int

    @property
    def side(self) -> int:
        """Of an axis."""
        return round(BLOCK ** (1 / self.axes))


# A square takes fewer steps, and more registers than other chips' compilers find.
CUBE, SQUARE = Shape(3, 8, 2), Shape(2, 4, 3)


def shape_of(x: Tensor) -> Shape:
    """The faster one of those that spill nothing."""
    return SQUARE if x.dtype == torch.float32 and nvidia_architecture() >= 90 else CUBE


def srht(x: Tensor, rows: Tensor, out: Tensor, m: int, q: int, d: int, seed: int) -> None:
    """out = x Pᵀ: x [m, q], rows [d], out [m, d]."""
    shape = shape_of(x)
    outputs = min(OUTPUTS, max(128, triton.next_power_of_2(d)))
    _srht[(m, triton.cdiv(d, outputs))](
        x, rows, out, q, d, seed, 1 / math.sqrt(d), int(Stream.srht_signs), BLOCK, shape.axes, shape.side, outputs,
        num_warps=shape.num_warps, num_stages=shape.num_stages,
    )  # fmt: skip


def cards() -> list[Card]:
    """The gradients of 1,024 tasks of Conv4-64, compressed to 2,048 numbers."""
    m, q, d, made = 1024, 111_936, 2048, []
    for dtype, unit, products in ((torch.float32, "bf16", 3), (torch.float64, "fp64", 1)):
        x, out = meta(m, q, dtype=dtype), meta(m, d, dtype=dtype)
        name, rows = f"srht/srht/fp{8 * dtype.itemsize}", meta(d, dtype=torch.int64)
        shape = shape_of(x)
        flops = products * shape.axes * 2 * m * q * shape.side
        made += drawn(name, srht, x, rows, out, m, q, d, 0, flops=flops, unit=unit, padded=False)
    return made
