"""Normalisation, activation and max pool with their tangents and cotangents: csrc/cpu/norm_act_pool.cpp on a GPU.

All are bound by memory. A tile is [positions, tangents, channels]: what the K tangents of a position share (x, x̂,
slope, winner) is read once for TANGENTS of them, and channels lie side by side, so that rows of a multiple of four
load and store 128 bits a thread. Sums over a task's positions are made in parts, added by the kernel that reads them
(`sums`): their order depends on the positions and on C, never on T; K of 1, 2 or more lays a tile out differently among
threads. Bytes, with e the size of a number and κ = ⌈K / TANGENTS⌉:

    moments  e·P·C
    gather   e·P·(K + κ)C + e·Q·KC + 4Q·κC          P positions of x, Q of y; where windows overlap, dx is read again
    jvp      e·Q·(2K + 2κ)C
    affine   e·Q·(K + 2κ)C
    vjp      e·P·(K + κ)C + e·Q·(K + κ)C + 4P·κC    the winner is read at every position of its window

and 2e·KC for each part that `gather` and `affine` write, as much for each that a program of `jvp` and `vjp` reads, and
4e·C for each tile of `moments`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn, meta
from tlxml_fast.kernels.sums import cut, part_of, reading, total_of
from tlxml_fast.kernels.target import all_registers
from tlxml_fast.ops.norm_act_pool import PARTS

TANGENTS = 4  # a tile without tangents must still have four numbers a thread, for 128-bit accesses
# Numbers of a tile, where there are TANGENTS of them: as many as keep loads under way, fewer where sums take registers.
TILE, SUMS_TILE = {torch.float32: 2048, torch.float64: 1024}, 1024
TILES, NUMBERS = 256, 8  # of the moments of tiles: so many are added at a time, and so many channels of each
WARPS = 4


@triton.jit
def position_of(row, rows, columns):
    """(image, i, j) of a position counted over images of rows × columns."""
    return row // (rows * columns), row // columns % rows, row % columns


@triton.jit
def vector(pointer, c, in_c):
    """A [C] vector of the task as [1, 1, channels]."""
    return tl.load(pointer + c, mask=in_c, other=0.0)[None, None, :]


@triton.jit
def item_of(K, C, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr):
    """The task of this program, its tangents [1, TANGENTS, 1], its channels, and which of both there are."""
    blocks = tl.cdiv(K, TANGENTS)
    item = tl.program_id(0)
    k = item % blocks * TANGENTS + tl.arange(0, TANGENTS)
    item = item // blocks
    c = item % tl.cdiv(C, CHANNELS) * CHANNELS + tl.arange(0, CHANNELS)
    task = (item // tl.cdiv(C, CHANNELS)).to(tl.int64)
    return task, k[None, :, None], c, c < C, k[None, :, None] < K


@triton.jit
def for_tangents(c, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr):
    """The channels, once a tangent: a thread then loads what tangents share itself, and waits for no other thread."""
    return tl.broadcast_to(c[None, None, :], (1, TANGENTS, CHANNELS))


@triton.jit
def window_around(
    window, task, n, p, q, there, N, Ho, Wo,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, WINDOWS: tl.constexpr,
):  # fmt: skip
    """Of the WINDOWS × WINDOWS that may hold (p, q): whether this one does, its output, and the place in it."""
    i = (p + PADDING) // STRIDE - window // WINDOWS
    j = (q + PADDING) // STRIDE - window % WINDOWS
    a, b = p + PADDING - i * STRIDE, q + PADDING - j * STRIDE
    inside = there & (i >= 0) & (i < Ho) & (j >= 0) & (j < Wo) & (a < KERNEL) & (b < KERNEL)
    return inside, ((task * N + n) * Ho + i) * Wo + j, a * KERNEL + b


@triton.jit
def _channel_moments(x, mean, var, P, C, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Of each tile of a task's positions, [T, tiles, C]: its own mean, and its variance about that."""
    tiles = tl.cdiv(P, POSITIONS)
    task, first = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * POSITIONS
    row = (first + tl.arange(0, POSITIONS))[:, None]
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (row < P) & (c < C)[None, :]
    here = tl.load(x + (task * P + row) * C + c[None, :], mask=inside, other=0.0)
    count = tl.minimum(P - first, POSITIONS)
    centre = tl.sum(here, 0) / count
    apart = tl.where(inside, here - centre[None, :], 0.0)
    out = tl.program_id(0).to(tl.int64) * C + c
    tl.store(mean + out, centre, mask=c < C)
    tl.store(var + out, tl.sum(apart * apart, 0) / count, mask=c < C)


@triton.jit
def _moments_of_tiles(
    means, variances, mean, var, P, C, POSITIONS: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr
):
    """The variance of all is the mean of the tiles' variances, and the variance of their means."""
    tiles = tl.cdiv(P, POSITIONS)
    task = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros((TILES, CHANNELS), mean.dtype.element_ty)
    for first in range(0, tiles, TILES):
        tile = (first + tl.arange(0, TILES))[:, None]
        at, inside = (task * tiles + tile) * C + c[None, :], (tile < tiles) & (c < C)[None, :]
        total += tl.minimum(P - tile * POSITIONS, POSITIONS) * tl.load(means + at, mask=inside, other=0.0)
    centre = tl.sum(total, 0) / P
    total = tl.zeros((TILES, CHANNELS), mean.dtype.element_ty)
    for first in range(0, tiles, TILES):
        tile = (first + tl.arange(0, TILES))[:, None]
        at, inside = (task * tiles + tile) * C + c[None, :], (tile < tiles) & (c < C)[None, :]
        apart = tl.load(means + at, mask=inside, other=0.0) - centre[None, :]
        square = tl.load(variances + at, mask=inside, other=0.0) + apart * apart
        total += tl.where(inside, tl.minimum(P - tile * POSITIONS, POSITIONS) * square, 0.0)
    tl.store(mean + task * C + c, centre, mask=c < C)
    tl.store(var + task * C + c, tl.sum(total, 0) / P, mask=c < C)


@triton.jit
def _forward(
    x, mean, rstd, gamma, beta, y, x_hat, slope, winner, N, H, W, C, Ho, Wo,
    LEAK: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N * Ho * Wo, POSITIONS)
    task = (tl.program_id(0) // tiles).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    in_c = c < C
    row = tl.program_id(0) % tiles * POSITIONS + tl.arange(0, POSITIONS)
    n, i, j = position_of(row, Ho, Wo)
    there = row < N * Ho * Wo
    mu = tl.load(mean + task * C + c, mask=in_c, other=0.0)[None, :]
    r = tl.load(rstd + task * C + c, mask=in_c, other=0.0)[None, :]
    g = tl.load(gamma + task * C + c, mask=in_c, other=0.0)[None, :]
    b = tl.load(beta + task * C + c, mask=in_c, other=0.0)[None, :]
    x += task * N * H * W * C
    best = tl.full((POSITIONS, CHANNELS), float("-inf"), x.dtype.element_ty)
    hat = tl.zeros((POSITIONS, CHANNELS), x.dtype.element_ty)
    place = tl.full((POSITIONS, CHANNELS), -1, tl.int32)
    for tap in tl.static_range(KERNEL * KERNEL):
        p, q = i * STRIDE - PADDING + tap // KERNEL, j * STRIDE - PADDING + tap % KERNEL
        inside = (there & (p >= 0) & (p < H) & (q >= 0) & (q < W))[:, None] & in_c[None, :]
        at = ((n * H + p) * W + q).to(tl.int64)[:, None] * C + c[None, :]
        h = (tl.load(x + at, mask=inside, other=0.0) - mu) * r
        z = g * h + b
        z = tl.where(z > 0, z, LEAK * z)
        # the first place of the window, then whatever is better; a NaN wins, as in torch
        better = inside & ((place < 0) | (z > best) | (z != z))
        best, hat, place = tl.where(better, z, best), tl.where(better, h, hat), tl.where(better, tap, place)
    out = (task * N * Ho * Wo + row)[:, None] * C + c[None, :]
    mask = there[:, None] & in_c[None, :]
    tl.store(y + out, best, mask=mask)
    tl.store(x_hat + out, hat, mask=mask)
    one = tl.full(best.shape, 1.0, best.dtype)
    tl.store(slope + out, tl.where(best > 0, one, LEAK * one), mask=mask)
    tl.store(winner + out, place, mask=mask)


@triton.jit(do_not_specialize=["K", "each"])  # or their divisibility would choose the order of sums
def _gather(
    dx, x, mean, rstd, winner, chosen, moments, count, N, H, W, K, C, Ho, Wo, rows, columns, each,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, SUMS: tl.constexpr, APART: tl.constexpr,
    POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Over windows [rows, columns] of every image, `each` a program. Where windows lie APART, some of them beyond the
    pool's own, every position is in one, and is summed with it; else `each` positions are summed by themselves."""
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    own_c = for_tangents(c, TANGENTS, CHANNELS)
    image = task * N * H * W
    mu, r = vector(mean + task * C, c, in_c), vector(rstd + task * C, c, in_c)
    first_sum = tl.zeros((POSITIONS, TANGENTS, CHANNELS), dx.dtype.element_ty)
    second_sum = tl.zeros((POSITIONS, TANGENTS, CHANNELS), dx.dtype.element_ty)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, N * rows * columns), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        n, i, j = position_of(row, rows, columns)
        there = row < N * rows * columns
        of_pool = there & (i < Ho) & (j < Wo)
        out = ((task * N + n) * Ho + i) * Wo + j
        won = tl.load(winner + out * C + own_c, mask=of_pool & lanes, other=-1)
        best = tl.zeros((POSITIONS, TANGENTS, CHANNELS), dx.dtype.element_ty)
        for a in range(KERNEL):
            p = i * STRIDE - PADDING + a
            for b in tl.static_range(KERNEL):
                q = j * STRIDE - PADDING + b
                inside = there & (p >= 0) & (p < H) & (q >= 0) & (q < W) & lanes
                at = image + (n * H + p) * W + q
                d = tl.load(dx + at * K * C + kc, mask=inside, other=0.0)
                best = tl.where(won == a * KERNEL + b, d, best)
                if SUMS and APART:
                    here = tl.load(x + at * C + own_c, mask=inside, other=0.0)
                    first_sum += d
                    second_sum += (here - mu) * r * d
        tl.store(chosen + out * K * C + kc, best, mask=of_pool & lanes)
    if SUMS and not APART:
        for first in range(begin, tl.minimum(begin + each, N * H * W), POSITIONS):
            row = first + tl.arange(0, POSITIONS)[:, None, None]
            mask = (row < N * H * W) & lanes
            d = tl.load(dx + (image + row) * K * C + kc, mask=mask, other=0.0)
            here = tl.load(x + (image + row) * C + own_c, mask=mask, other=0.0)
            first_sum += d
            second_sum += (here - mu) * r * d
    if SUMS:
        moments = part_of(moments, task, 2 * K * C)
        tl.store(moments + kc, tl.sum(first_sum, 0)[None] / count, mask=lanes)
        tl.store(moments + K * C + kc, tl.sum(second_sum, 0)[None] / count, mask=lanes)


@triton.jit(do_not_specialize=["K", "each", "parts"])  # or their divisibility would choose the order of sums
def _jvp(
    chosen, moments, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, rstd, gamma, x_hat, slope, dy, Q, K, C,
    each, parts, POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    scale, g = vector(rstd + task * C, c, in_c), vector(gamma + task * C, c, in_c)
    scale = g * scale
    one = -scale * total_of(moments, task, parts, 2 * K * C, kc, lanes)
    hat = -scale * total_of(moments, task, parts, 2 * K * C, K * C + kc, lanes)
    if dbeta is not None:
        one += tl.load(dbeta + task * dbeta_task + k * dbeta_k + c[None, None, :], mask=lanes, other=0.0)
    if dgamma is not None:
        hat += tl.load(dgamma + task * dgamma_task + k * dgamma_k + c[None, None, :], mask=lanes, other=0.0)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, Q), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        there, out = row < Q, task * Q + row
        shared = there & in_c[None, None, :]
        xh = tl.load(x_hat + out * C + c[None, None, :], mask=shared, other=0.0)
        s = tl.load(slope + out * C + c[None, None, :], mask=shared, other=0.0)
        d = tl.load(chosen + out * K * C + kc, mask=there & lanes, other=0.0)
        tl.store(dy + out * K * C + kc, s * (scale * d + one + hat * xh), mask=there & lanes)


@triton.jit(do_not_specialize=["K", "each"])  # or their divisibility would choose the order of sums
def _affine(
    gy, x_hat, slope, gaffine, Q, K, C, each,
    POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    own_c = for_tangents(c, TANGENTS, CHANNELS)
    gbeta = tl.zeros((POSITIONS, TANGENTS, CHANNELS), gy.dtype.element_ty)
    ggamma = tl.zeros((POSITIONS, TANGENTS, CHANNELS), gy.dtype.element_ty)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, Q), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        mask, out = (row < Q) & lanes, task * Q + row
        xh = tl.load(x_hat + out * C + own_c, mask=mask, other=0.0)
        s = tl.load(slope + out * C + own_c, mask=mask, other=0.0)
        s = s * tl.load(gy + out * K * C + kc, mask=mask, other=0.0)
        gbeta += s
        ggamma += s * xh
    gaffine = part_of(gaffine, task, 2 * K * C)
    tl.store(gaffine + kc, tl.sum(gbeta, 0)[None], mask=lanes)
    tl.store(gaffine + K * C + kc, tl.sum(ggamma, 0)[None], mask=lanes)


@triton.jit(do_not_specialize=["K", "each", "parts"])  # or their divisibility would choose the order of sums
def _vjp(
    gy, gaffine, x, mean, rstd, gamma, slope, winner, gx, count, N, H, W, K, C, Ho, Wo, each, parts,
    BATCH: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    WINDOWS: tl.constexpr,
    POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Position by position, from the WINDOWS × WINDOWS windows that may hold it."""
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    mu, r = vector(mean + task * C, c, in_c), vector(rstd + task * C, c, in_c)
    scale = vector(gamma + task * C, c, in_c) * r
    share = -scale / count if BATCH else tl.zeros_like(scale)
    one = share * total_of(gaffine, task, parts, 2 * K * C, kc, lanes)
    hat = share * total_of(gaffine, task, parts, 2 * K * C, K * C + kc, lanes)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, N * H * W), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        there, at = row < N * H * W, task * N * H * W + row
        n, p, q = position_of(row, H, W)
        here = tl.load(x + at * C + c[None, None, :], mask=there & in_c[None, None, :], other=0.0)
        g = one + hat * ((here - mu) * r)
        for window in tl.static_range(WINDOWS * WINDOWS):
            inside, out, tap = window_around(
                window, task, n, p, q, there, N, Ho, Wo, KERNEL, STRIDE, PADDING, WINDOWS
            )
            won = tl.load(winner + out * C + c[None, None, :], mask=inside & in_c[None, None, :], other=-1)
            # masks that channels share leave loads wide; the sectors are the same
            s = tl.load(slope + out * C + c[None, None, :], mask=inside & in_c[None, None, :], other=0.0)
            s = s * tl.load(gy + out * K * C + kc, mask=inside & lanes, other=0.0)
            g += tl.where(won == tap, scale * s, 0.0)
        tl.store(gx + at * K * C + kc, g, mask=there & lanes)


# ---- launchers --------------------------------------------------------------------------------------------------


def tile_of(like: Tensor, K: int, C: int, sums: bool = False) -> dict[str, int]:
    """POSITIONS depends on C alone, so that sums over positions do not depend on K; fewer where sums are held."""
    channels = min(64, max(4, triton.next_power_of_2(C)))
    return {
        "POSITIONS": (SUMS_TILE if sums else TILE[like.dtype]) // (TANGENTS * channels),
        "TANGENTS": min(TANGENTS, triton.next_power_of_2(K)),
        "CHANNELS": channels,
    }


def items_of(T: int, K: int, C: int, tile: dict[str, int]) -> int:
    return T * triton.cdiv(K, tile["TANGENTS"]) * triton.cdiv(C, tile["CHANNELS"])


def windows_of(kernel: int, stride: int) -> int:
    """How many windows in a row may hold a position."""
    return triton.cdiv(kernel, stride)


def strides_of(x: Tensor | None) -> tuple[Tensor | None, int, int]:
    """A tangent [T or 1, K, C] of γ or β, of any strides but the last: from task to task, from tangent to tangent."""
    return (None, 0, 0) if x is None else (x, x.stride(0) if len(x) > 1 else 0, x.stride(1))


def count_of(inverse_count: float) -> int:
    """M of 1/M: a kernel's own numbers arrive in float32, which is not enough for float64."""
    return round(1 / inverse_count) if inverse_count else 0


def channel_moments(x: Tensor, mean: Tensor, var: Tensor, T: int, P: int, C: int) -> None:
    """Mean and variance of each task's channels."""
    channels = min(64, max(4, triton.next_power_of_2(C)))
    positions = 4 * TILE[x.dtype] // channels
    tiles = triton.cdiv(P, positions)
    means, variances = (mean, var) if tiles == 1 else mean.new_empty(2, T, tiles, C)
    _channel_moments[(T * tiles, triton.cdiv(C, channels))](
        x, means, variances, P, C, POSITIONS=positions, CHANNELS=channels, num_warps=WARPS
    )
    if tiles > 1:
        _moments_of_tiles[(T, triton.cdiv(C, NUMBERS))](
            means, variances, mean, var, P, C, POSITIONS=positions, TILES=TILES, CHANNELS=NUMBERS
        )


def norm_act_pool(
    x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, beta: Tensor, y: Tensor, x_hat: Tensor, slope: Tensor,
    winner: Tensor, T: int, N: int, H: int, W: int, C: int, Ho: int, Wo: int, kernel: int, stride: int, padding: int,
    leak: float,
) -> None:  # fmt: skip
    """y = pool(act(γx̂ + β)), and what its derivatives need."""
    channels = min(64, max(4, triton.next_power_of_2(C)))
    positions = TILE[x.dtype] // 2 // channels
    grid = (T * triton.cdiv(N * Ho * Wo, positions), triton.cdiv(C, channels))
    _forward[grid](
        x, mean, rstd, gamma, beta, y, x_hat, slope, winner, N, H, W, C, Ho, Wo,
        LEAK=leak, KERNEL=kernel, STRIDE=stride, PADDING=padding, POSITIONS=positions, CHANNELS=channels,
        num_warps=WARPS,
    )  # fmt: skip


def norm_act_pool_gather(
    dx: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, winner: Tensor, chosen: Tensor, moments: Tensor | None,
    T: int, N: int, H: int, W: int, K: int, C: int, Ho: int, Wo: int, kernel: int, stride: int, padding: int,
    inverse_count: float,
) -> None:  # fmt: skip
    """ẋ at the winners, and the means of ẋ and x̂ẋ over a batch of 1/inverse_count positions."""
    tile, sums = tile_of(dx, K, C, sums=True), moments is not None
    apart = kernel == stride and padding == 0
    rows, columns = (max(Ho, triton.cdiv(H, stride)), max(Wo, triton.cdiv(W, stride))) if apart else (Ho, Wo)
    windows = N * rows * columns
    positions = windows if apart or not sums else max(windows, N * H * W)
    each, programs = (
        cut(positions, tile["POSITIONS"], moments) if sums else reading(positions, tile["POSITIONS"])
    )
    _gather[(items_of(T, K, C, tile), programs)](
        dx, x, mean, rstd, winner, chosen, moments, count_of(inverse_count), N, H, W, K, C, Ho, Wo, rows, columns, each,
        KERNEL=kernel, STRIDE=stride, PADDING=padding, SUMS=sums, APART=apart,
        **all_registers({"num_warps": tile["TANGENTS"], **tile}),
    )  # fmt: skip


def norm_act_pool_jvp(
    chosen: Tensor, moments: Tensor, dgamma: Tensor | None, dbeta: Tensor | None, rstd: Tensor, gamma: Tensor,
    x_hat: Tensor, slope: Tensor, dy: Tensor, T: int, N: int, K: int, C: int, Ho: int, Wo: int,
) -> None:  # fmt: skip
    """ẏ of what `norm_act_pool_gather` found."""
    tile, Q = tile_of(chosen, K, C), N * Ho * Wo
    each, programs = reading(Q, tile["POSITIONS"], moments)
    _jvp[(items_of(T, K, C, tile), programs)](
        chosen, moments, *strides_of(dgamma), *strides_of(dbeta), rstd, gamma, x_hat, slope, dy, Q, K, C,
        each, moments.shape[1], num_warps=WARPS, **tile,
    )  # fmt: skip


def norm_act_pool_affine(
    gy: Tensor,
    x_hat: Tensor,
    slope: Tensor,
    gaffine: Tensor,
    T: int,
    N: int,
    K: int,
    C: int,
    Ho: int,
    Wo: int,
) -> None:
    """β̄ and γ̄."""
    tile = tile_of(gy, K, C, sums=True)
    each, parts = cut(N * Ho * Wo, tile["POSITIONS"], gaffine)
    _affine[(items_of(T, K, C, tile), parts)](
        gy, x_hat, slope, gaffine, N * Ho * Wo, K, C, each, num_warps=tile["TANGENTS"], **tile
    )


def norm_act_pool_vjp(
    gy: Tensor, gaffine: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, slope: Tensor, winner: Tensor,
    gx: Tensor, T: int, N: int, H: int, W: int, K: int, C: int, Ho: int, Wo: int, kernel: int, stride: int,
    padding: int, inverse_count: float,
) -> None:  # fmt: skip
    """x̄."""
    tile = tile_of(gy, K, C)
    each, programs = reading(N * H * W, tile["POSITIONS"], gaffine)
    _vjp[(items_of(T, K, C, tile), programs)](
        gy, gaffine, x, mean, rstd, gamma, slope, winner, gx, count_of(inverse_count), N, H, W, K, C, Ho, Wo,
        each, gaffine.shape[1],
        BATCH=inverse_count > 0, KERNEL=kernel, STRIDE=stride, PADDING=padding, WINDOWS=windows_of(kernel, stride),
        num_warps=WARPS, **tile,
    )  # fmt: skip


def problems() -> Iterator[SimpleNamespace]:
    """What cards are drawn of: Conv4-64's first block with 8 tasks of 100 images, 8 tangents or one; and float64."""
    for K, dtype, pool in (
        (8, torch.float32, 2),
        (1, torch.float32, 2),
        (8, torch.float32, 1),
        (8, torch.float64, 2),
    ):
        T, N, H, W, C = 8, 100, 28, 28, 64
        P, Q = (T, N, H, W), (T, N, H // pool, W // pool)
        yield SimpleNamespace(
            K=K, N=N, C=C, T=T, H=H, W=W, pool=pool, unit="fp64" if dtype == torch.float64 else "fp32",
            vector=meta(T, C, dtype=dtype), affine=meta(T, K, C, dtype=dtype),
            x=meta(*P, C, dtype=dtype), y=meta(*Q, C, dtype=dtype), dx=meta(*P, K, C, dtype=dtype),
            dy=meta(*Q, K, C, dtype=dtype), winner=meta(*Q, C, dtype=torch.int32),
            sums=meta(T, PARTS, 2, K, C, dtype=dtype), one=meta(T, PARTS, 2, 1, C, dtype=dtype),
            sizes=(*P, K, C, *Q[2:], pool, pool, 0), pooled=(T, N, K, C, *Q[2:]), inverse_count=1 / (N * H * W),
        )  # fmt: skip


def cards() -> list[Card]:
    """Of all but the JVP of the VJP."""
    made = []
    for p in problems():
        v = p.vector
        calls = [
            (norm_act_pool_gather, (p.dx, p.x, v, v, p.winner, p.dy, p.sums, *p.sizes, p.inverse_count),
             5 * p.dx.numel()),
            (norm_act_pool_jvp, (p.dy, p.sums, p.affine, p.affine, v, v, p.y, p.y, p.dy, *p.pooled), 5 * p.dy.numel()),
            (norm_act_pool_affine, (p.dy, p.y, p.y, p.sums, *p.pooled), 4 * p.dy.numel()),
            (norm_act_pool_vjp, (p.dy, p.sums, p.x, v, v, v, p.y, p.winner, p.dx, *p.sizes, p.inverse_count),
             3 * p.dx.numel() + 3 * p.dy.numel()),
        ]  # fmt: skip
        if p.K > 1:
            sizes = (*p.sizes[:4], *p.sizes[5:])
            calls += [
                (channel_moments, (p.x, v, v, p.T, p.N * p.H * p.W, p.C), 4 * p.x.numel()),
                (norm_act_pool, (p.x, v, v, v, v, p.y, p.y, p.y, p.winner, *sizes, 0.0), 5 * p.x.numel()),
            ]
        for launcher, arguments, flops in calls:
            name = f"norm_act_pool/{launcher.__name__}/{p.unit}/K{p.K} pool {p.pool}"
            made += drawn(name, launcher, *arguments, flops=flops, unit=p.unit)
    return made
