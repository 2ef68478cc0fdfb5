"""The JVP of the VJP of normalisation, activation and max pool, by the formulas of csrc/cpu/norm_act_pool.cpp.

Two sweeps, both bound by memory: over outputs for the sums, which are the tangents of β̄ and γ̄, in parts (`sums`), then
position by position for those of x̄. What the second finds at outputs it computes again.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.kernels.card import Card, drawn
from tlxml_fast.kernels.norm_act_pool import (
    WARPS,
    count_of,
    for_tangents,
    item_of,
    items_of,
    position_of,
    problems,
    strides_of,
    tile_of,
    vector,
    window_around,
    windows_of,
)
from tlxml_fast.kernels.sums import cut, part_of, reading, total_of


@triton.jit
def _second_order(
    gy, dgy, chosen, x_hat, slope, curve, out, one, hat, r, g, dg, db, k, K, C, c, kc, mask, shared,
):  # fmt: skip
    """ds, s, dx̂ and x̂ at outputs: what the sums and the scattered values of the JVP of the VJP are made of."""
    xh = tl.load(x_hat + out * C + c, mask=shared, other=0.0)
    s = tl.load(slope + out * C + c, mask=shared, other=0.0)
    primal = tl.load(gy + out * C + c, mask=shared, other=0.0)
    dx_hat = r * tl.load(chosen + out * K * C + kc, mask=mask, other=0.0) + one + hat * xh
    ds = s * tl.load(dgy + out * K * C + kc, mask=mask, other=0.0)
    if curve is not None:
        ds += tl.load(curve + out * C + c, mask=shared, other=0.0) * (g * dx_hat + dg * xh + db) * primal
    return ds, s * primal, dx_hat, xh


@triton.jit
def _tangents_of_affine(
    moments, moments_parts, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, r, task, k, c, K, C, kc, lanes,
):  # fmt: skip
    """Of x̂'s constants, γ and β: dx̂ = r dx + one + hat x̂."""
    one = -r * total_of(moments, task, moments_parts, 2 * K * C, kc, lanes)
    hat = -r * total_of(moments, task, moments_parts, 2 * K * C, K * C + kc, lanes)
    dg, db = tl.zeros_like(one), tl.zeros_like(one)
    if dgamma is not None:
        dg = tl.load(dgamma + task * dgamma_task + k * dgamma_k + c[None, None, :], mask=lanes, other=0.0)
    if dbeta is not None:
        db = tl.load(dbeta + task * dbeta_task + k * dbeta_k + c[None, None, :], mask=lanes, other=0.0)
    return one, hat, dg, db


@triton.jit(
    do_not_specialize=["K", "each", "moments_parts"]
)  # or their divisibility would choose the order of sums
def _hvp_affine(
    gy, dgy, chosen, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, moments,
    rstd, gamma, x_hat, slope, curve, dgaffine, Q, K, C, each, moments_parts,
    POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    r, g = vector(rstd + task * C, c, in_c), vector(gamma + task * C, c, in_c)
    one, hat, dg, db = _tangents_of_affine(
        moments, moments_parts, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, r, task, k, c, K, C, kc,
        lanes,
    )  # fmt: skip
    dgbeta = tl.zeros((POSITIONS, TANGENTS, CHANNELS), gy.dtype.element_ty)
    dggamma = tl.zeros((POSITIONS, TANGENTS, CHANNELS), gy.dtype.element_ty)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, Q), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        mask = (row < Q) & lanes
        ds, s, dx_hat, xh = _second_order(
            gy, dgy, chosen, x_hat, slope, curve, task * Q + row, one, hat, r, g, dg, db, k, K, C,
            for_tangents(c, TANGENTS, CHANNELS), kc, mask, mask,
        )  # fmt: skip
        dgbeta += ds
        dggamma += ds * xh + s * dx_hat
    dgaffine = part_of(dgaffine, task, 2 * K * C)
    tl.store(dgaffine + kc, tl.sum(dgbeta, 0)[None], mask=lanes)
    tl.store(dgaffine + K * C + kc, tl.sum(dggamma, 0)[None], mask=lanes)


# or their divisibility would choose the order of sums
@triton.jit(do_not_specialize=["K", "each", "moments_parts", "gaffine_parts", "dgaffine_parts"])
def _hvp(
    gy, gx, gaffine, dgy, dx, chosen, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, moments,
    x, mean, rstd, gamma, x_hat, slope, curve, winner, dgx, dgaffine, count, N, H, W, K, C, Ho, Wo,
    each, moments_parts, gaffine_parts, dgaffine_parts,
    BATCH: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    WINDOWS: tl.constexpr,
    POSITIONS: tl.constexpr, TANGENTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    task, k, c, in_c, in_k = item_of(K, C, TANGENTS, CHANNELS)
    lanes = in_k & in_c[None, None, :]
    kc = k * C + c[None, None, :]
    mu, r = vector(mean + task * C, c, in_c), vector(rstd + task * C, c, in_c)
    g = vector(gamma + task * C, c, in_c)
    one, hat, dg, db = _tangents_of_affine(
        moments, moments_parts, dgamma, dgamma_task, dgamma_k, dbeta, dbeta_task, dbeta_k, r, task, k, c, K, C, kc,
        lanes,
    )  # fmt: skip
    one_c, in_one = c[None, None, :], in_c[None, None, :]
    gbeta = total_of(gaffine, task, gaffine_parts, 2 * C, one_c, in_one)
    ggamma = total_of(gaffine, task, gaffine_parts, 2 * C, C + one_c, in_one)
    share = -r / count if BATCH else tl.zeros_like(r)
    dgbeta = total_of(dgaffine, task, dgaffine_parts, 2 * K * C, kc, lanes)
    dggamma = total_of(dgaffine, task, dgaffine_parts, 2 * K * C, K * C + kc, lanes)
    begin = tl.program_id(1) * each
    for first in range(begin, tl.minimum(begin + each, N * H * W), POSITIONS):
        row = first + tl.arange(0, POSITIONS)[:, None, None]
        there, at = row < N * H * W, task * N * H * W + row
        n, p, q = position_of(row, H, W)
        shared = there & in_c[None, None, :]
        xh = (tl.load(x + at * C + c[None, None, :], mask=shared, other=0.0) - mu) * r
        primal = tl.load(gx + at * C + c[None, None, :], mask=shared, other=0.0)
        d = tl.load(dx + at * K * C + kc, mask=there & lanes, other=0.0)
        total = share * (g * (dgbeta + one * ggamma) + dg * gbeta)
        total += share * (g * (dggamma + hat * ggamma) + dg * ggamma) * xh
        total += share * g * r * ggamma * d + hat * primal
        for window in tl.static_range(WINDOWS * WINDOWS):
            inside, out, tap = window_around(
                window, task, n, p, q, there, N, Ho, Wo, KERNEL, STRIDE, PADDING, WINDOWS
            )
            won = tl.load(winner + out * C + c[None, None, :], mask=inside & in_c[None, None, :], other=-1)
            ds, s, _, _ = _second_order(
                gy, dgy, chosen, x_hat, slope, curve, out, one, hat, r, g, dg, db, k, K, C,
                c[None, None, :], kc, inside & lanes, inside & in_c[None, None, :],
            )  # fmt: skip
            total += tl.where(won == tap, r * (g * ds + dg * s), 0.0)
        tl.store(dgx + at * K * C + kc, total, mask=there & lanes)


def norm_act_pool_hvp(
    gy: Tensor, gx: Tensor, gaffine: Tensor, dgy: Tensor, dx: Tensor, chosen: Tensor, dgamma: Tensor | None,
    dbeta: Tensor | None, moments: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, x_hat: Tensor,
    slope: Tensor, curve: Tensor | None, winner: Tensor, dgx: Tensor, dgaffine: Tensor,
    T: int, N: int, H: int, W: int, K: int, C: int, Ho: int, Wo: int, kernel: int, stride: int, padding: int,
    inverse_count: float,
) -> None:  # fmt: skip
    """The tangents of x̄, β̄ and γ̄."""
    tile = tile_of(gy, K, C)
    items = items_of(T, K, C, tile)
    each, parts = cut(N * Ho * Wo, tile["POSITIONS"], dgaffine)
    _hvp_affine[(items, parts)](
        gy, dgy, chosen, *strides_of(dgamma), *strides_of(dbeta), moments,
        rstd, gamma, x_hat, slope, curve, dgaffine, N * Ho * Wo, K, C, each, moments.shape[1],
        num_warps=tile["TANGENTS"], **tile,
    )  # fmt: skip
    sums = (moments, gaffine, dgaffine)
    each, programs = reading(N * H * W, tile["POSITIONS"], *sums)
    _hvp[(items, programs)](
        gy, gx, gaffine, dgy, dx, chosen, *strides_of(dgamma), *strides_of(dbeta), moments,
        x, mean, rstd, gamma, x_hat, slope, curve, winner, dgx, dgaffine,
        count_of(inverse_count), N, H, W, K, C, Ho, Wo, each, *(x.shape[1] for x in sums),
        BATCH=inverse_count > 0, KERNEL=kernel, STRIDE=stride, PADDING=padding, WINDOWS=windows_of(kernel, stride),
        num_warps=WARPS, **tile,
    )  # fmt: skip


def cards() -> list[Card]:
    """As for the other kernels, in `norm_act_pool`."""
    made = []
    for p in problems():
        v = p.vector
        arguments = (
            p.y, p.x, p.one, p.dy, p.dx, p.dy, p.affine, p.affine, p.sums, p.x, v, v, v, p.y, p.y, p.y, p.winner,
            p.dx, p.sums, *p.sizes, p.inverse_count,
        )  # fmt: skip
        name = f"norm_act_pool_hvp/norm_act_pool_hvp/{p.unit}/K{p.K} pool {p.pool}"
        flops = 9 * p.dx.numel() + 18 * p.dy.numel()
        made += drawn(name, norm_act_pool_hvp, *arguments, flops=flops, unit=p.unit)
    return made
