"""Sums over a task's positions: many programs make the parts, and a second, small launch adds a task's parts in order.

Where the cuts are depends on the positions and on C alone: neither on T nor on K. A part costs its sums twice, once
written and once read, beside at least EACH tiles of positions that it reads.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

EACH = 16  # tiles of a part, at least
MOST = 512  # parts, at most: they fill a device, and are added in a few steps
PARTS, NUMBERS = 256, 8  # parts that are added at a time, and how many numbers of each: a sector or two


@triton.jit
def part_of(sums, task, size):
    """Where the program (·, part) puts its `size` sums: sums [T, parts, size]."""
    return sums + (task * tl.num_programs(1) + tl.program_id(1)) * size


@triton.jit(do_not_specialize=["count", "K"])  # or their divisibility would choose the order of sums
def _add_parts(parts, out, count, K, C, PARTS: tl.constexpr, NUMBERS: tl.constexpr):
    """out [T, 2, K, C] of parts [T, count, 2, K, C]."""
    size = 2 * K * C
    task = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)[None, :]
    total = tl.zeros((PARTS, NUMBERS), out.dtype.element_ty)
    for first in range(0, count, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]
        there = (part < count) & (i < size)
        total += tl.load(parts + (task * count + part) * size + i, mask=there, other=0.0)
    tl.store(out + task * size + i, tl.sum(total, 0)[None, :], mask=i < size)


def cut(positions: int, tile: int) -> tuple[int, int]:
    """Positions of a part, a multiple of the tile's, and how many parts there are."""
    each = tile * max(EACH, triton.cdiv(positions, tile * MOST))
    return each, triton.cdiv(positions, each)


def in_parts(out: Tensor, count: int) -> Tensor:
    """Where programs put parts of out [T, 2, K, C]: into itself, if there is one."""
    return out if count == 1 else out.new_empty(len(out), count, *out.shape[1:])


def add_parts(parts: Tensor, out: Tensor) -> None:
    """Their sum, if they are not `out` itself."""
    if parts is not out:
        T, _, K, C = out.shape
        grid = (T, triton.cdiv(2 * K * C, NUMBERS))
        _add_parts[grid](parts, out, parts.shape[1], K, C, PARTS=PARTS, NUMBERS=NUMBERS)
