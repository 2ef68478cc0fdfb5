"""Sums over a task's positions, [T, parts, 2, K, C]: many programs make the parts, and whoever reads them adds them.

How many parts there are depends on the positions and on C alone (`Primal.parts` of ops/norm_act_pool.py): neither on T
nor on K. A reader takes as many tiles of positions as there are parts, so that they are a tenth of what it moves.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

LEAST = 8  # tiles of a reader
AT_ONCE = tl.constexpr(8)
MOST = 65535  # programs along the second axis of a grid


@triton.jit
def part_of(sums, task, size):
    """Where the program (·, part) puts its `size` sums."""
    return sums + (task * tl.num_programs(1) + tl.program_id(1)) * size


@triton.jit
def total_of(sums, task, parts, size, at, mask):
    """Over a task's parts of `size` numbers, of those `at` [1, ·, ·]."""
    part = tl.arange(0, AT_ONCE).to(tl.int64)[:, None, None]
    sums += task * parts * size
    total = tl.load(sums + part * size + at, mask=mask & (part < parts), other=0.0)
    for first in range(AT_ONCE, parts, AT_ONCE):
        here = first + part
        total += tl.load(sums + here * size + at, mask=mask & (here < parts), other=0.0)
    return tl.sum(total, 0)[None]


def cut(positions: int, tile: int, sums: Tensor) -> tuple[int, int]:
    """Positions of a part, a multiple of the tile's, and how many parts there are; the last may have none."""
    parts = sums.shape[1]
    return tile * triton.cdiv(positions, tile * parts), parts


def reading(positions: int, tile: int, *sums: Tensor) -> tuple[int, int]:
    """Positions of a program that reads these sums, and how many programs there are."""
    each = tile * max([LEAST, triton.cdiv(positions, tile * MOST), *(x.shape[1] for x in sums)])
    return each, triton.cdiv(positions, each)
