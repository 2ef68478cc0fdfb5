"""Products of a convolution with K tangents beside each other, as implicit GEMMs: no patches are ever written.

A program has one tangent of one task. `push` and `pull` share a kernel: a tile of positions by output channels sums,
over taps and input channels, images times weights, where either the images or the weights have tangents:

    push    y[n, i, j, k]     = Σ_ab dx[n, is − p + a, js − p + b, k] w[a, b] + x[…] dw[k, a, b]
    pull    x̄[n, i, j, k]     = Σ_ab ȳ[n, (i + p − a)/s, …, k] w[a, b]ᵀ + ȳ1[…] dw[k, a, b]ᵀ
    gram    w̄[k, a, b, c, o]  = Σ_nij x[n, is − p + a, …, c] ȳ[n, i, j, k, o] + dx[…, k, c] ȳ1[n, i, j, o]

Flops are 2·positions·taps·C·O a term and tangent. Tangents are the fastest axis of the grid, so that programs which
share the primal's operand run together and find it in the second-level cache. `gram` sums positions in parts whose
length the sizes alone decide, and torch adds the parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.products import add_product
from tlxml_fast.kernels.target import all_registers

STRETCH = tl.constexpr(2048)  # positions, a multiple of every tile's DEPTH


@triton.jit
def _term(
    acc, images, image_stride, image_k, weights, w_tap, w_in, w_out, n, i, j, there, o, in_o,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    BACK: tl.constexpr, TAPS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + images · weights. With TAPS the inner index runs over taps and channels together, for few channels."""
    depth = KH * KW * C if TAPS else C
    blocks = tl.cdiv(depth, DEPTH)
    steps = blocks if TAPS else blocks * (KH * KW)
    for step in range(0, steps):
        if TAPS:
            at = step * DEPTH + tl.arange(0, DEPTH)
            tap, c = at // C, at % C
            in_c = at < depth
            a, b = (tap // KW)[None, :], (tap % KW)[None, :]
        else:
            tap = step // blocks
            c = step % blocks * DEPTH + tl.arange(0, DEPTH)
            in_c = c < C
            a, b = tap // KW, tap % KW
        if BACK:
            p, q = i[:, None] + PAD_H - a, j[:, None] + PAD_W - b
            inside = (p >= 0) & (q >= 0) & (p % STRIDE_H == 0) & (q % STRIDE_W == 0)
            p, q = p // STRIDE_H, q // STRIDE_W
            inside = inside & (p < H) & (q < W)
        else:
            p, q = i[:, None] * STRIDE_H - PAD_H + a, j[:, None] * STRIDE_W - PAD_W + b
            inside = (p >= 0) & (p < H) & (q >= 0) & (q < W)
        at_image = ((n[:, None] * H + p) * W + q).to(tl.int64) * image_stride + image_k + c[None, :]
        left = tl.load(images + at_image, mask=inside & there[:, None] & in_c[None, :], other=0.0)
        at_weight = (tap * w_tap + c * w_in)[:, None] + (o * w_out)[None, :]
        right = tl.load(weights + at_weight, mask=in_c[:, None] & in_o[None, :], other=0.0)
        acc = add_product(acc, left, right, PRECISION)
    return acc


@triton.jit
def _product(
    many, weights, weights_task, one, dweights, dweights_task, dweights_k, out, N, K,
    w_tap, w_in, w_out,
    H: tl.constexpr, W: tl.constexpr, Ho: tl.constexpr, Wo: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, BACK: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out [T, N, Ho, Wo, K, O] of images [T, N, H, W, K, C] and [T, N, H, W, C]."""
    k = tl.program_id(0) % K
    tiles = tl.cdiv(N * Ho * Wo, ROWS)
    row = tl.program_id(0) // K % tiles * ROWS + tl.arange(0, ROWS)
    task = (tl.program_id(0) // K // tiles).to(tl.int64)
    o = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, in_o = row < N * Ho * Wo, o < O
    n, i, j = row // (Ho * Wo), row // Wo % Ho, row % Wo
    acc = tl.zeros((ROWS, COLUMNS), tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32)
    if many is not None:
        acc = _term(
            acc, many + task * N * H * W * K * C, K * C, k * C, weights + task * weights_task, w_tap, w_in, w_out,
            n, i, j, there, o, in_o, H, W, C, KH, KW, STRIDE_H, STRIDE_W, PAD_H, PAD_W, BACK, TAPS, DEPTH, PRECISION,
        )  # fmt: skip
    if one is not None:
        dweights += task * dweights_task + k.to(tl.int64) * dweights_k
        acc = _term(
            acc, one + task * N * H * W * C, C, 0, dweights, w_tap, w_in, w_out,
            n, i, j, there, o, in_o, H, W, C, KH, KW, STRIDE_H, STRIDE_W, PAD_H, PAD_W, BACK, TAPS, DEPTH, PRECISION,
        )  # fmt: skip
    at = (task * N * Ho * Wo + row)[:, None] * K * O + k * O + o[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=there[:, None] & in_o[None, :])


@triton.jit
def _gram_term(
    acc, images, image_stride, image_k, gy, gy_stride, gy_k, first, last, tap, c, in_row, o, in_o,
    H: tl.constexpr, W: tl.constexpr, Ho: tl.constexpr, Wo: tl.constexpr, KW: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + Σ images · ȳ over positions first … last − 1 of a task, by stretches: a long sum's rounding grows."""
    a, b = (tap // KW)[:, None], (tap % KW)[:, None]
    for begin in range(first, last, STRETCH):
        part = tl.zeros_like(acc)
        end = tl.minimum(begin + STRETCH, last)
        for start in range(begin, end, DEPTH):
            row = start + tl.arange(0, DEPTH)
            there = row < end
            n, i, j = row // (Ho * Wo), row // Wo % Ho, row % Wo
            p, q = i[None, :] * STRIDE_H - PAD_H + a, j[None, :] * STRIDE_W - PAD_W + b
            inside = (p >= 0) & (p < H) & (q >= 0) & (q < W) & there[None, :]
            at_image = ((n[None, :] * H + p) * W + q).to(tl.int64) * image_stride + image_k + c[:, None]
            left = tl.load(images + at_image, mask=inside & in_row[:, None], other=0.0)
            at_gy = row.to(tl.int64)[:, None] * gy_stride + gy_k + o[None, :]
            right = tl.load(gy + at_gy, mask=there[:, None] & in_o[None, :], other=0.0)
            part = add_product(part, left, right, PRECISION)
        acc += part
    return acc


@triton.jit
def _gram(
    x, many, dx, one, out, N, K, parts, each,
    H: tl.constexpr, W: tl.constexpr, Ho: tl.constexpr, Wo: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out [T, parts, K, KH·KW·C, O]; a part has `each` positions of a task."""
    k = tl.program_id(0) % K
    item = tl.program_id(0) // K
    tiles = tl.cdiv(KH * KW * C, ROWS)
    rows = item % tiles * ROWS + tl.arange(0, ROWS)
    in_row = rows < KH * KW * C
    tap, c = rows // C, rows % C
    o = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_o = o < O
    piece = (item // tiles).to(tl.int64)
    task, first = piece // parts, (piece % parts).to(tl.int32) * each
    last = tl.minimum(first + each, N * Ho * Wo)
    acc = tl.zeros((ROWS, COLUMNS), tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32)
    image, position = task * N * H * W, task * N * Ho * Wo
    if x is not None:
        acc = _gram_term(
            acc, x + image * C, C, 0, many + position * K * O, K * O, k * O, first, last, tap, c, in_row, o, in_o,
            H, W, Ho, Wo, KW, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DEPTH, PRECISION,
        )  # fmt: skip
    if dx is not None:
        acc = _gram_term(
            acc, dx + image * K * C, K * C, k * C, one + position * O, O, 0, first, last, tap, c, in_row, o, in_o,
            H, W, Ho, Wo, KW, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DEPTH, PRECISION,
        )  # fmt: skip
    at = ((piece * K + k) * KH * KW * C + rows)[:, None] * O + o[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=in_row[:, None] & in_o[None, :])


# ---- launchers --------------------------------------------------------------------------------------------------

FEW_CHANNELS = 16

# Of `gram`: positions of a task a program, less where its part of the result is small; where tasks are summed, so many
# programs as keep every multiprocessor busy to the end, with no fewer positions each than are worth a program.
PART = 4096
TOTAL_PROGRAMS, LEAST_PART = 4096, 1024


class Tile(NamedTuple):
    """Rows of a tile, the step of its inner index, warps, and loads under way: as large as registers hold."""

    rows: int
    depth: int
    num_warps: int
    num_stages: int = 2

    def options(self, unit: str, columns: int) -> dict[str, int | str]:
        """Of a launch whose tiles have up to 64 columns."""
        return all_registers(
            {
                "ROWS": self.rows,
                "COLUMNS": min(64, max(16, triton.next_power_of_2(columns))),
                "DEPTH": self.depth,
                "PRECISION": "ieee" if unit in ("fp32", "fp64") else unit,
                "num_warps": self.num_warps,
                "num_stages": self.num_stages,
            }
        )


# By what products are made of; the fastest of several on an H200. Of `gram` both operands lie across what is summed,
# and in tiles of 64 rows TF32's products of a warp group would have to turn them.
TILES = {
    "fp32": Tile(64, 16, 4),
    "fp64": Tile(64, 16, 4),
    "tf32": Tile(128, 32, 4, 3),
    "tf32x3": Tile(64, 32, 4, 3),
    "bf16": Tile(128, 32, 4, 3),
}
GRAM_TILES = {
    "fp32": Tile(64, 16, 4),
    "fp64": Tile(32, 16, 4),
    "tf32": Tile(32, 32, 4),
    "tf32x3": Tile(32, 32, 4),
    "bf16": Tile(64, 32, 4, 3),
}
# How weights should lie in memory: FMAs want those of different outputs side by side, TF32's tensor cores take only
# those of different inputs so; others take either. A copy of the weights is nothing beside the images.
ALONG_INPUTS = {"fp32": False, "tf32": True, "tf32x3": True}


def _unit(precision: str, out: Tensor) -> str:
    """float64 is exact whatever the setting."""
    return "fp64" if out.dtype == torch.float64 else precision


class _Geometry(NamedTuple):
    """What a launch is compiled for."""

    H: int
    W: int
    Ho: int
    Wo: int
    C: int
    O: int
    KH: int
    KW: int
    STRIDE_H: int
    STRIDE_W: int
    PAD_H: int
    PAD_W: int

    def back(self) -> _Geometry:
        """That of the adjoint, whose images are this one's outputs."""
        return self._replace(H=self.Ho, W=self.Wo, Ho=self.H, Wo=self.W, C=self.O, O=self.C)


def _launch_product(
    many: Tensor | None, weights: Tensor | None, one: Tensor | None, dweights: Tensor | None, out: Tensor,
    T: int, N: int, K: int, g: _Geometry, back: bool, precision: str,
) -> None:  # fmt: skip
    """Weights are [T or 1, taps, I, O] and [T or 1, K, taps, I, O]; g.C is I, or back O."""
    unit = _unit(precision, out)
    weights, dweights = (w if w is None else conv_weights(w, back, precision) for w in (weights, dweights))
    tile = TILES[unit].options(unit, g.O)
    strides = (g.C * g.O, 1, g.C) if ALONG_INPUTS.get(unit, back) else (g.C * g.O, g.O, 1)
    grid = (K * triton.cdiv(N * g.Ho * g.Wo, tile["ROWS"]) * T, triton.cdiv(g.O, tile["COLUMNS"]))
    _product[grid](
        many, weights, weights.stride(0) if weights is not None and len(weights) > 1 else 0,
        one, dweights, dweights.stride(0) if dweights is not None and len(dweights) > 1 else 0,
        0 if dweights is None else dweights.stride(1),
        out, N, K, *strides, **g._asdict(), BACK=back, TAPS=g.C < FEW_CHANNELS, **tile,
    )  # fmt: skip


def conv_weights(w: Tensor, back: bool, precision: str) -> Tensor:
    """w [..., taps, I, O] as `conv_push`, or back `conv_pull`, reads it: itself where it lies so, else a copy."""
    turned = ALONG_INPUTS.get(_unit(precision, w), back) != back
    I, O = w.shape[-2:]
    if w.stride()[-3:] == ((I * O, 1, I) if turned else (I * O, O, 1)):
        return w
    return w.mT.contiguous().mT if turned else w.contiguous()


def conv_push(
    dx: Tensor | None, w: Tensor | None, x: Tensor | None, dw: Tensor | None, y: Tensor,
    T: int, N: int, K: int, H: int, W: int, Ho: int, Wo: int, C: int, O: int, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, padding_h: int, padding_w: int, precision: str,
) -> None:  # fmt: skip
    """y = dx ∗ w + x ∗ dw."""
    g = _Geometry(H, W, Ho, Wo, C, O, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w)
    _launch_product(dx, w, x, dw, y, T, N, K, g, False, precision)


def conv_pull(
    gy: Tensor | None, w: Tensor | None, gy1: Tensor | None, dw: Tensor | None, gx: Tensor,
    T: int, N: int, K: int, H: int, W: int, Ho: int, Wo: int, C: int, O: int, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, padding_h: int, padding_w: int, precision: str,
) -> None:  # fmt: skip
    """x̄: the adjoint of `conv_push` in dx at gy, and in x at gy1."""
    g = _Geometry(H, W, Ho, Wo, C, O, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w)
    _launch_product(gy, w, gy1, dw, gx, T, N, K, g.back(), True, precision)


def conv_gram(
    x: Tensor | None, gy: Tensor | None, dx: Tensor | None, gy1: Tensor | None, gw: Tensor,
    T: int, N: int, K: int, H: int, W: int, Ho: int, Wo: int, C: int, O: int, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, padding_h: int, padding_w: int, total: int, precision: str,
) -> None:  # fmt: skip
    """w̄ [T, K, taps, C, O], or with `total` their sum over tasks, [1, K, taps, C, O]."""
    g = _Geometry(H, W, Ho, Wo, C, O, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w)
    unit, rows = _unit(precision, gw), kernel_h * kernel_w * C
    tile = GRAM_TILES[unit]._replace(**({"rows": 16} if rows <= 32 else {})).options(unit, O)
    tiles, columns = triton.cdiv(rows, tile["ROWS"]), triton.cdiv(O, tile["COLUMNS"])
    if total:  # then all tasks' images are as those of one
        T, N = 1, T * N
        parts = triton.cdiv(TOTAL_PROGRAMS, K * tiles * columns)
        each = max(LEAST_PART, triton.cdiv(N * Ho * Wo, parts))
    else:
        each = PART if tiles > 1 else PART // 2
    parts = triton.cdiv(N * Ho * Wo, each)
    out = gw if parts == 1 else gw.new_empty(T, parts, *gw.shape[1:])
    _gram[(T * parts * tiles * K, columns)](x, gy, dx, gy1, out, N, K, parts, each, **g._asdict(), **tile)
    if parts > 1:
        torch.sum(out, 1, out=gw)


def cards() -> list[Card]:
    """Conv4-64's blocks: grey images and 64 channels, 8 tasks of 100 images, 8 tangents; every precision."""
    made = []
    for C, precision, dtype in (
        (64, "fp32", torch.float32), (64, "tf32", torch.float32), (64, "tf32x3", torch.float32),
        (64, "bf16", torch.float32), (64, "fp32", torch.float64), (16, "fp32", torch.float32),
        (1, "fp32", torch.float32), (1, "tf32x3", torch.float32), (1, "fp32", torch.float64),
    ):  # fmt: skip
        T, N, H, W, K, O = 8, 100, 14, 14, 8, 64
        unit = "fp64" if dtype == torch.float64 else precision
        x, dx = meta(T, N, H, W, C, dtype=dtype), meta(T, N, H, W, K, C, dtype=dtype)
        y, dy = meta(T, N, H, W, O, dtype=dtype), meta(T, N, H, W, K, O, dtype=dtype)
        w, dw = meta(1, 9, C, O, dtype=dtype), meta(1, K, 9, C, O, dtype=dtype)
        sizes = (T, N, K, H, W, H, W, C, O, 3, 3, 1, 1, 1, 1)
        flops = 2 * T * N * H * W * K * 9 * C * O
        for launcher, terms, arguments in (
            (conv_push, 2, (dx, w, x, dw, dy, *sizes, precision)),
            (conv_pull, 1, (dy, w, None, None, dx, *sizes, precision)),
            (conv_pull, 2, (dy, w, y, dw, dx, *sizes, precision)),
            (conv_gram, 1, (x, dy, None, None, dw, *sizes, 1, precision)),
            (conv_gram, 2, (x, dy, dx, y, meta(T, K, 9, C, O, dtype=dtype), *sizes, 0, precision)),
        ):
            name = f"convolution/{launcher.__name__}/{unit}/{C} channels, {terms} terms"
            made += drawn(name, launcher, *arguments, flops=terms * flops, unit=unit, padded=C > 1)
    return made
