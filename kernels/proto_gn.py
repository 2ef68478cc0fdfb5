"""JᵀΛJ on tangents of a ProtoNet's embeddings: the twin of csrc/cpu/proto_gn.cpp, which has the formulas.
alpha and gamma come divided by beta here: they are -1 for all distances but the cosine.

Three launches, each a kernel below: the examples' shares in their class's mean, and class means; what the tangents of
one task have in common; the tangents, a program each. The first two are of the embeddings alone, and are made once for
many products (`proto_gn_primal`). A tangent sweeps the embedding's width twice, since w = Λ df needs all of it. Between
the sweeps βw lies in a scratch tensor that the program alone reads again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.kernels.card import Card, meta
from tlxml_fast.kernels.products import add_product
from tlxml_fast.kernels.target import all_registers

SQEUCLIDEAN, EUCLIDEAN, COSINE = 0, 1, 2  # csrc/ops.h's enum Distance


class Tile(NamedTuple):
    """Up to `classes` classes; `rows` examples and `width` columns of embeddings at a time."""

    classes: int
    rows: int
    width: int
    warps: int
    stages: int  # of the tangents' launch; ptxas then spills nothing on any chip


class Primal(NamedTuple):
    """What the kernels make of embeddings alone: see `_class_means` and `_coefficients`."""

    members: Tensor
    means: Tensor
    centre: Tensor
    shared: Tensor


TILES = (
    Tile(16, 32, 32, 2, 1),
    Tile(32, 32, 32, 4, 1),
    Tile(64, 16, 32, 4, 2),
    Tile(128, 32, 32, 8, 1),
    Tile(256, 16, 16, 8, 2),
)


@triton.jit
def _load_rows(x, row, rows, column, columns, apart=None):
    """x[row, column] of x [rows, columns], whose rows lie next to each other or so far `apart`; zero outside."""
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    at = row[:, None].to(tl.int64) * (columns if apart is None else apart) + column[None, :]
    return tl.load(x + at, mask=inside, other=0.0)


@triton.jit
def _store_rows(x, row, rows, column, columns, value, apart=None):
    """x[row, column] = value inside x, as of `_load_rows`."""
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    at = row[:, None].to(tl.int64) * (columns if apart is None else apart) + column[None, :]
    tl.store(x + at, value, mask=inside)


@triton.jit
def _class_means(
    support,  # [T, S, D]
    labels,  # [T, S]
    members,  # [T, S, C]: 1 / (shots of class c) for the examples of class c, else 0
    means,  # [T, C, D], less their mean where CENTRED: the centre
    centre,  # [T, D]
    S,
    D,
    C: tl.constexpr,
    CENTRED: tl.constexpr,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    t = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    cls = tl.arange(0, CLASSES)
    dtype: tl.constexpr = support.dtype.element_ty
    labels += t * S
    shots = tl.zeros((CLASSES,), tl.int32)
    for first in range(0, S, ROWS):
        s = first + tl.arange(0, ROWS)
        label = tl.load(labels + s, mask=s < S, other=-1)
        shots += tl.sum((label[:, None] == cls[None, :]).to(tl.int32), 0)
    c = tl.zeros((CLASSES, WIDTH), dtype)
    for first in range(0, S, ROWS):
        s = first + tl.arange(0, ROWS)
        label = tl.load(labels + s, mask=s < S, other=-1)
        member = (label[:, None] == cls[None, :]).to(dtype) / tl.maximum(shots, 1)[None, :]
        if tl.program_id(0) == 0:
            _store_rows(members + t * S * C, s, S, cls, C, member)
        c = add_product(c, tl.trans(member), _load_rows(support + t * S * D, s, S, d, D), "ieee")
    if CENTRED:
        middle = tl.sum(c, 0) / C
        tl.store(centre + t * D + d, middle, mask=d < D)
        c -= middle[None, :]
    _store_rows(means + t * C * D, cls, C, d, D, c)


@triton.jit
def _load_queries(query, centre, m, n, d, D, CENTRED: tl.constexpr):
    """query[m, d] less the centre; zero outside."""
    z = _load_rows(query, m, n, d, D)
    if CENTRED:
        middle = tl.load(centre + d, mask=d < D, other=0.0)
        z = tl.where(m[:, None] < n, z - middle[None, :], 0.0)
    return z


@triton.jit
def _coefficients(
    query,  # [T, n, D]
    means,  # [T, C, D]
    centre,  # [T, D]
    shared,  # [T, 4, n, C]: p, beta, alpha / beta, gamma / beta
    scale: tl.float64,
    n,
    D,
    C: tl.constexpr,
    DISTANCE: tl.constexpr,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    t = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cls = tl.arange(0, CLASSES)
    dtype: tl.constexpr = query.dtype.element_ty
    z_squared = tl.zeros((ROWS,), dtype)
    c_squared = tl.zeros((CLASSES,), dtype)
    pair = tl.zeros((ROWS, CLASSES), dtype)  # <z, c> for the cosine, else |z - c|^2
    for first in range(0, D, WIDTH):
        d = first + tl.arange(0, WIDTH)
        z = _load_queries(query + t * n * D, centre + t * D, m, n, d, D, DISTANCE != 2)
        if DISTANCE == 2:
            c = _load_rows(means + t * C * D, cls, C, d, D)
            z_squared += tl.sum(z * z, 1)
            c_squared += tl.sum(c * c, 1)
            pair = add_product(pair, z, tl.trans(c), "ieee")
        else:
            for k in range(C):
                row = tl.load(means + (t * C + k) * D + d, mask=d < D, other=0.0)
                difference = z - row[None, :]
                pair += tl.where(cls[None, :] == k, tl.sum(difference * difference, 1)[:, None], 0.0)

    s = scale.to(dtype)
    if DISTANCE == 2:
        z_squared += 1e-12
        c_squared += 1e-12
        beta = s / (tl.sqrt(z_squared)[:, None] * tl.sqrt(c_squared)[None, :])
        logits = beta * pair
        alpha, gamma = -pair / z_squared[:, None], -pair / c_squared[None, :]
    else:
        distance = tl.sqrt(pair + 1e-12) if DISTANCE == 1 else pair
        logits = -s * distance
        beta = s / distance if DISTANCE == 1 else tl.zeros_like(pair) + 2 * s
        alpha, gamma = tl.zeros_like(pair) - 1, tl.zeros_like(pair) - 1

    e = tl.exp(logits - tl.max(tl.where(cls[None, :] < C, logits, float("-inf")), 1)[:, None])
    e = tl.where(cls[None, :] < C, e, 0.0)
    p = e / tl.sum(e, 1)[:, None]
    part = tl.cast(n, tl.int64) * C
    shared += 4 * t * part
    _store_rows(shared, m, n, cls, C, p)
    _store_rows(shared + part, m, n, cls, C, beta)
    _store_rows(shared + 2 * part, m, n, cls, C, alpha)
    _store_rows(shared + 3 * part, m, n, cls, C, gamma)


# K may not be specialised: whether it is a multiple of 16 must not decide layouts, and with them the order of sums.
@triton.jit(do_not_specialize=["K"])
def _tangents(
    query,  # [T, n, D]
    members,  # [T, S, C]
    dsupport,  # [T, K, S, D], or BESIDE the queries' in a tensor [T, S + n, K, D]; so are the next three
    dquery,  # [T, K, n, D]
    gsupport,  # [T, K, S, D]; until its own values are known, the tangents of the class means: C <= S
    gquery,  # [T, K, n, D]
    weights,  # [T], factors of the results, or None
    means,  # [T, C, D]
    centre,  # [T, D]
    shared,  # [T, 4, n, C]
    pulls,  # [T, K, n, C]: beta w
    K,
    S,
    n,
    D,
    C: tl.constexpr,
    CENTRED: tl.constexpr,
    BESIDE: tl.constexpr,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    t = tl.program_id(1).to(tl.int64)
    item = t * K + tl.program_id(0)
    cls = tl.arange(0, CLASSES)
    dtype: tl.constexpr = query.dtype.element_ty
    query += t * n * D
    centre += t * D
    members += t * S * C
    means += t * C * D
    shared += t * 4 * n * C
    apart = K * D if BESIDE else D  # from one example to the next
    of_support = (t * (S + n) * K + tl.program_id(0)) * D if BESIDE else item * S * D
    of_query = of_support if BESIDE else item * n * D
    dsupport += of_support
    dquery += of_query
    gsupport += of_support
    gquery += of_query
    pulls += item * n * C
    weight = 1.0 if weights is None else tl.load(weights + t)
    part = tl.cast(n, tl.int64) * C

    for start in range(0, D, WIDTH):
        d = start + tl.arange(0, WIDTH)
        dc = tl.zeros((CLASSES, WIDTH), dtype)
        for first in range(0, S, ROWS):
            s = first + tl.arange(0, ROWS)
            member = _load_rows(members, s, S, cls, C)
            dc = add_product(dc, tl.trans(member), _load_rows(dsupport, s, S, d, D, apart), "ieee")
        _store_rows(gsupport, cls, C, d, D, dc, apart)
    tl.debug_barrier()  # what follows reads what other threads wrote

    c_weight = tl.zeros((CLASSES,), dtype)
    for first in range(0, n, ROWS):
        m = first + tl.arange(0, ROWS)
        z_dz = tl.zeros((ROWS,), dtype)
        c_dc = tl.zeros((CLASSES,), dtype)
        cross = tl.zeros((ROWS, CLASSES), dtype)
        for start in range(0, D, WIDTH):
            d = start + tl.arange(0, WIDTH)
            z = _load_queries(query, centre, m, n, d, D, CENTRED)
            dz = _load_rows(dquery, m, n, d, D, apart)
            c = _load_rows(means, cls, C, d, D)
            dc = _load_rows(gsupport, cls, C, d, D, apart)
            z_dz += tl.sum(z * dz, 1)
            c_dc += tl.sum(c * dc, 1)
            cross = add_product(cross, dz, tl.trans(c), "ieee")
            cross = add_product(cross, z, tl.trans(dc), "ieee")
        p = _load_rows(shared, m, n, cls, C)
        beta = _load_rows(shared + part, m, n, cls, C)
        alpha = _load_rows(shared + 2 * part, m, n, cls, C)
        gamma = _load_rows(shared + 3 * part, m, n, cls, C)
        df = beta * (alpha * z_dz[:, None] + cross + gamma * c_dc[None, :])
        pull = weight * beta * (p / n * (df - tl.sum(p * df, 1)[:, None]))
        c_weight += tl.sum(gamma * pull, 0)
        _store_rows(pulls, m, n, cls, C, pull)
    tl.debug_barrier()  # what follows reads what other threads wrote, and writes where others read

    for start in range(0, D, WIDTH):
        d = start + tl.arange(0, WIDTH)
        c = _load_rows(means, cls, C, d, D)
        gc = c_weight[:, None] * c
        for first in range(0, n, ROWS):
            m = first + tl.arange(0, ROWS)
            z = _load_queries(query, centre, m, n, d, D, CENTRED)
            pull = _load_rows(pulls, m, n, cls, C)
            alpha = -1.0 if CENTRED else _load_rows(shared + 2 * part, m, n, cls, C)
            z_weight = tl.sum(alpha * pull, 1)
            gz = add_product(z_weight[:, None] * z, pull, c, "ieee")
            gc = add_product(gc, tl.trans(pull), z, "ieee")
            _store_rows(gquery, m, n, d, D, gz, apart)
        for first in range(0, S, ROWS):
            s = first + tl.arange(0, ROWS)
            member = _load_rows(members, s, S, cls, C)
            gs = tl.dot(member, gc, input_precision="ieee", out_dtype=dtype)
            _store_rows(gsupport, s, S, d, D, gs, apart)


def proto_gn(
    support: Tensor, query: Tensor, labels: Tensor, dsupport: Tensor, dquery: Tensor, gsupport: Tensor, gquery: Tensor,
    T: int, K: int, S: int, n: int, C: int, D: int, distance: int, scale: float,
) -> None:  # fmt: skip
    """(gsupport, gquery) = JᵀΛJ (dsupport, dquery): [T, K, S, D] and [T, K, n, D]."""
    primal = proto_gn_primal(support, query, labels, T, S, n, C, D, distance, scale)
    _launch(query, primal, (dsupport, dquery, gsupport, gquery), None, T, K, S, n, C, D, distance, False)


def proto_gn_beside(
    query: Tensor, primal: Primal, dz: Tensor, gz: Tensor, weights: Tensor,
    T: int, K: int, S: int, n: int, C: int, D: int, distance: int,
) -> None:  # fmt: skip
    """gz = weights JᵀΛJ dz, both [T, S + n, K, D], with support first."""
    parts = (dz[:, :S], dz[:, S:], gz[:, :S], gz[:, S:])
    _launch(query, primal, parts, weights, T, K, S, n, C, D, distance, True)


def proto_gn_primal(
    support: Tensor, query: Tensor, labels: Tensor, T: int, S: int, n: int, C: int, D: int, distance: int, scale: float
) -> Primal:  # fmt: skip
    """What products at these embeddings share."""
    tile = _tile(C)
    blocks, options = tile[:3], all_registers({"num_warps": tile.warps, "num_stages": 1})
    members, means, centre, shared = (
        support.new_empty(size) for size in ((T, S, C), (T, C, D), (T, D), (T, 4, n, C))
    )
    grids = _grids(tile, T, 1, n, D)
    _class_means[grids[0]](
        support, labels, members, means, centre, S, D, C, distance != COSINE, *blocks, **options
    )
    _coefficients[grids[1]](query, means, centre, shared, scale, n, D, C, distance, *blocks, **options)
    return Primal(members, means, centre, shared)


def _launch(
    query: Tensor, primal: Primal, tangents: tuple[Tensor, ...], weights: Tensor | None,
    T: int, K: int, S: int, n: int, C: int, D: int, distance: int, beside: bool,
) -> None:  # fmt: skip
    tile = _tile(C)
    pulls = query.new_empty(T, K, n, C)
    _tangents[_grids(tile, T, K, n, D)[2]](
        query, primal.members, *tangents, weights, primal.means, primal.centre, primal.shared, pulls,
        K, S, n, D, C, distance != COSINE, beside, *tile[:3],
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def _tile(C: int) -> Tile:
    for tile in TILES:
        if tile.classes >= C:
            return tile
    raise TlxError(f"proto_gn: {C} classes; on a GPU there may be {TILES[-1].classes}.")


def _grids(tile: Tile, T: int, K: int, n: int, D: int) -> tuple[tuple[int, ...], ...]:
    width = triton.cdiv(D, tile.width)
    return (width, T), (triton.cdiv(n, tile.rows), T), (K, T)


def cards() -> list[Card]:
    """The launches of every tile and distance; the smallest tile at float64 too."""
    made = []
    for tile, distance, dtype in (
        *((tile, SQEUCLIDEAN, torch.float32) for tile in TILES),
        (TILES[0], EUCLIDEAN, torch.float32),
        (TILES[0], COSINE, torch.float32),
        (TILES[0], SQEUCLIDEAN, torch.float64),
    ):
        made += _cards_of(tile, distance, dtype)
    return made


def _cards_of(tile: Tile, distance: int, dtype: torch.dtype) -> list[Card]:
    K, C, D = 32, tile.classes // 2, 64
    T = 256 // C
    S, n, size, centred = 5 * C, 15 * C, dtype.itemsize, distance != COSINE
    unit = "fp64" if dtype == torch.float64 else "fp32"
    name = f"{unit}/C{C}/{('sqeuclidean', 'euclidean', 'cosine')[distance]}"
    blocks, options, grids = (
        tile[:3],
        all_registers({"num_warps": tile.warps, "num_stages": 1}),
        _grids(tile, T, K, n, D),
    )
    means = Card(
        f"proto_gn/class_means/{name}",
        _class_means,
        (dtype, torch.int64, dtype, dtype, dtype, S, D, C, centred, *blocks),
        grids[0],
        options,
        flops=T * S * D,
        bytes=T * (size * ((S + C + centred) * D + S * C) + 8 * S),
        unit=unit,
    )
    coefficients = Card(
        f"proto_gn/coefficients/{name}",
        _coefficients,
        (dtype, dtype, dtype, dtype, 1.0, n, D, C, distance, *blocks),
        grids[1],
        options,
        flops=T * n * C * 3 * D,
        bytes=T * size * ((n + C + centred) * D + 4 * n * C),
        unit=unit,
    )
    tangents = Card(  # as the engine launches it; the call is the whole op's, of which this is nearly all
        f"proto_gn/tangents/{name}",
        _tangents,
        (*[dtype] * 11, K, S, n, D, C, centred, True, *blocks),
        grids[2],
        {"num_warps": tile.warps, "num_stages": tile.stages},
        flops=T * K * (S + 8 * n * C + 4 * n + 2 * C) * D,
        bytes=T * (size * (K * (2 * (S + n) * D + n * C) + (n + C + centred) * D + (4 * n + S) * C)),
        unit=unit,
        call=(
            proto_gn, meta(T, S, D, dtype=dtype), meta(T, n, D, dtype=dtype), meta(T, S, dtype=torch.int64),
            *(meta(T, K, N, D, dtype=dtype) for N in (S, n, S, n)), T, K, S, n, C, D, distance, 1.0,
        ),
    )  # fmt: skip
    return [means, coefficients, tangents]
