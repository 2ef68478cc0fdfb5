"""Products of stacks of small matrices with any strides: csrc/cpu/stacked_mm.cpp on a GPU.

A program has a tile of one pair's product and walks along k. Flops are 2·B·m·k·n; each tile of a is read ⌈n/COLUMNS⌉
times and of b ⌈m/ROWS⌉ times, mostly from the second-level cache, which the tiles of one pair share.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.products import add_product
from tlxml_fast.kernels.target import all_registers

WARPS = 4


@triton.jit
def _stacked_mm(
    a, b, out, m, k, n, a_batch, a_m, a_k, b_batch, b_k, b_n, out_batch, out_m,
    ADD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    columns = tl.cdiv(n, COLUMNS)
    tiles = tl.cdiv(m, ROWS) * columns
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    row = (tile // columns * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = (tile % columns * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    in_m, in_n = (row < m)[:, None], (column < n)[None, :]
    a += pair * a_batch + row[:, None] * a_m
    b += pair * b_batch + column[None, :] * b_n
    acc = tl.zeros((ROWS, COLUMNS), tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32)
    for first in range(0, k, DEPTH):
        depth = (first + tl.arange(0, DEPTH)).to(tl.int64)
        left = tl.load(a + depth[None, :] * a_k, mask=in_m & (depth < k)[None, :], other=0.0)
        right = tl.load(b + depth[:, None] * b_k, mask=(depth < k)[:, None] & in_n, other=0.0)
        acc = add_product(acc, left, right, PRECISION)
    at = out + pair * out_batch + row[:, None] * out_m + column[None, :]
    if ADD:
        acc += tl.load(at, mask=in_m & in_n, other=0.0)
    tl.store(at, acc.to(out.dtype.element_ty), mask=in_m & in_n)


def stacked_mm(
    a: Tensor, b: Tensor, out: Tensor, B: int, m: int, k: int, n: int, a_batch: int, a_m: int, a_k: int,
    b_batch: int, b_k: int, b_n: int, out_batch: int, out_m: int, add: int, precision: str = "fp32",
) -> None:  # fmt: skip
    """out (+)= a b for each of B pairs."""
    double = out.dtype == torch.float64
    tile = {
        "ROWS": min(64, max(16, triton.next_power_of_2(m))),
        "COLUMNS": min(64, max(16, triton.next_power_of_2(n))),
        "DEPTH": 32 if k > 16 and precision != "fp32" else 16,
    }
    grid = (B * triton.cdiv(m, tile["ROWS"]) * triton.cdiv(n, tile["COLUMNS"]),)
    _stacked_mm[grid](
        a, b, out, m, k, n, a_batch, a_m, a_k, b_batch, b_k, b_n, out_batch, out_m, ADD=bool(add),
        PRECISION="ieee" if precision == "fp32" or double else precision,
        **all_registers({"num_warps": WARPS, "num_stages": 2, **tile}),
    )  # fmt: skip


def cards() -> list[Card]:
    """A layer's tangents for 64 tasks, in every tile and precision."""
    made = []
    for m, k, n, precision, dtype in (
        (75, 64, 64, "fp32", torch.float32), (75, 64, 64, "tf32", torch.float32),
        (75, 64, 64, "tf32x3", torch.float32), (75, 64, 64, "bf16", torch.float32),
        (75, 64, 64, "fp32", torch.float64), (16, 16, 16, "fp32", torch.float32), (32, 32, 32, "fp32", torch.float32),
    ):  # fmt: skip
        B, unit = 64, "fp64" if dtype == torch.float64 else precision
        a, b, out = meta(B, m, k, dtype=dtype), meta(B, k, n, dtype=dtype), meta(B, m, n, dtype=dtype)
        arguments = (a, b, out, B, m, k, n, *a.stride(), *b.stride(), *out.stride()[:2], 0, precision)
        name = f"stacked_mm/stacked_mm/{unit}/{m}x{k}x{n}"
        made += drawn(name, stacked_mm, *arguments, flops=2 * B * m * k * n, unit=unit)
    return made
