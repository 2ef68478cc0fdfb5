"""(Λu)_m = p_m ∘ (u_m − ⟨p_m, u_m⟩) / n with p = softmax(logits): the twin of csrc/cpu/softmax_gn.cpp.

Bound by memory: u is read and Λu written once. A program takes some queries of one task and up to `TANGENTS` of its
vectors, so that the logits are read, and their softmax taken, once for all of these.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.kernels.card import Card, drawn, meta


class Tile(NamedTuple):
    """Rows of up to `classes`, `rows` of them at a time."""

    classes: int
    rows: int
    warps: int


TILES = (Tile(8, 128, 4), Tile(32, 32, 4), Tile(128, 8, 4), Tile(1024, 2, 8), Tile(8192, 1, 16))
TANGENTS = 8
MOST_TASKS = 65_535  # of a launch: the length of a grid's third axis


# K may not be specialised: whether it is a multiple of 16 must not decide layouts, and with them the order of sums.
@triton.jit(do_not_specialize=["K"])
def _softmax_gn(
    logits,  # [T, n, C]
    u,  # [T, K, n, C]
    out,  # [T, K, n, C]
    K,
    n,
    C: tl.constexpr,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    TANGENTS: tl.constexpr,
):
    t = tl.program_id(2).to(tl.int64)
    first = tl.program_id(1) * TANGENTS
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, CLASSES)
    at = m[:, None].to(tl.int64) * C + c[None, :]
    inside = (m[:, None] < n) & (c[None, :] < C)

    f = tl.load(logits + t * n * C + at, mask=inside, other=0.0)
    e = tl.exp(f - tl.max(tl.where(c[None, :] < C, f, float("-inf")), 1)[:, None])
    e = tl.where(c[None, :] < C, e, 0.0)
    p = e / tl.sum(e, 1)[:, None]
    weighted = p / n

    for k in range(first, min(first + TANGENTS, K)):
        item = (t * K + k) * n * C + at
        x = tl.load(u + item, mask=inside, other=0.0)
        mean = tl.sum(p * x, 1)[:, None]
        tl.store(out + item, weighted * (x - mean), mask=inside)


def softmax_gn(logits: Tensor, u: Tensor, out: Tensor, T: int, K: int, n: int, C: int) -> None:
    """out = Λu: logits [T, n, C], u and out [T, K, n, C]."""
    tile = _tile(C)
    for first in range(0, T, MOST_TASKS):
        tasks = slice(first, first + MOST_TASKS)
        _softmax_gn[_grid(tile, min(T - first, MOST_TASKS), K, n)](
            logits[tasks],
            u[tasks],
            out[tasks],
            K,
            n,
            C,
            tile.classes,
            tile.rows,
            TANGENTS,
            num_warps=tile.warps,
        )


def _tile(C: int) -> Tile:
    for tile in TILES:
        if tile.classes >= C:
            return tile
    raise TlxError(f"softmax_gn: {C} classes; on a GPU there may be {TILES[-1].classes}.")


def _grid(tile: Tile, T: int, K: int, n: int) -> tuple[int, int, int]:
    return triton.cdiv(n, tile.rows), triton.cdiv(K, TANGENTS), T


def cards() -> list[Card]:
    """A launch of every tile; with 8 classes, of float64 too."""
    T, K, n = 64, 32, 75
    made = []
    for tile, dtype in ((TILES[0], torch.float64), *((tile, torch.float32) for tile in TILES)):
        C, unit = tile.classes, "fp64" if dtype == torch.float64 else "fp32"
        logits, u = meta(T, n, C, dtype=dtype), meta(T, K, n, C, dtype=dtype)
        made += drawn(
            f"softmax_gn/softmax_gn/{unit}/C{C}", softmax_gn, logits, u, u.clone(), T, K, n, C,
            flops=5 * T * (K + 1) * n * C, unit=unit,
        )  # fmt: skip
    return made
