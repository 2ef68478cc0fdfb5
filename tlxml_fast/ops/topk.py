"""The k best scores of each row, tile by tile."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.ops._dispatch import check, choose, dense, launch, share

K_MAX = 1024


class TopK(NamedTuple):
    """The best scores of R rows, best first, and the columns they stand in."""

    values: Tensor
    """[R, k]; an empty place holds −∞, or +∞ where the smallest are sought."""
    indices: Tensor
    """[R, k], int64; −1 is an empty place."""


def topk(
    scores: Tensor,
    k: int,
    *,
    first: int = 0,
    largest: bool = True,
    into: TopK | None = None,
    backend: str = "auto",
) -> TopK:
    """The k largest or smallest scores of every row, which may come as tiles of columns, in any order.

        values_i = the i-th best of { scores_rc : c a column of any tile so far },    indices_i = its c

    A matrix of test × training tasks need never be in memory at once: each of its tiles is merged into what the tiles
    before it left. Equal scores (0 and −0 are equal) are ordered by column; NaN is ordered behind every number, and an
    empty place behind NaN, so that NaN is seen only where there are too few numbers.

    Args:
        scores: [R, m], float32 or float64, columns first … first + m − 1 of the R rows; any strides.
        k: how many, 1 to 1024; rows may have fewer.
        first: the index of the tile's first column. Every column is given once.
        largest: whether the largest are the best, or the smallest; the same for all tiles.
        into: what the tiles before left; it is updated in place.
        backend: "native" (C++, CPU tensors), "triton" (CUDA tensors, where the kernel is C++ in csrc/cuda/topk.cu),
            "reference" (pure torch), or "auto": the compiled one of the tensors' device where it can run.

    Returns:
        `into`, or a new TopK. The same bits for any tiling, batching, number of threads and backend.

    Raises:
        TlxError: shapes, dtypes or devices do not fit, or k is out of range.
        BackendError: the compiled backend named cannot run on these tensors, or there is no such backend.
    """
    R, m = check("topk", scores=(scores, "R m")).values()
    if not 1 <= k <= K_MAX:
        raise TlxError(f"topk: k is {k}, expected 1 to {K_MAX}.")
    if first < 0:
        raise TlxError(f"topk: first is {first}, expected the index of a column.")
    best = _empty(scores, k, largest) if into is None else _checked(into, scores, k)
    if choose("topk", backend, scores, best.values).backend == "reference":
        found = topk_ref(scores, k, first=first, largest=largest, into=best)
    else:
        found = TopK(dense(best.values), dense(best.indices))
        launch("topk", dense(scores), *found, R, m, k, first, int(largest))
    if into is None:
        return found
    for mine, new in zip(into, found, strict=True):
        if mine is not new:
            mine.copy_(new)
    return into


def topk_ref(
    scores: Tensor, k: int, *, first: int = 0, largest: bool = True, into: TopK | None = None
) -> TopK:
    """`topk` in plain torch, `into` left as it is: differentiable in scores, for any transform and device."""
    into = _empty(scores, k, largest) if into is None else into
    columns = torch.arange(first, first + scores.shape[1], device=scores.device).expand(scores.shape)
    values = torch.cat([into.values, scores + 0], 1)  # makes −0 into 0
    indices = torch.cat([into.indices, columns], 1)
    empty = (indices < 0).long()

    # Stable sorts, the least important key first. torch puts NaN last.
    order = indices.sort(dim=1).indices
    key = -values if largest else values
    for by in (key, empty):
        order = order.gather(1, by.gather(1, order).sort(dim=1, stable=True).indices)
    order = order[:, :k]
    return TopK(values.gather(1, order), indices.gather(1, order))


def _empty(scores: Tensor, k: int, largest: bool) -> TopK:
    return TopK(
        scores.new_full((len(scores), k), -torch.inf if largest else torch.inf),
        scores.new_full((len(scores), k), -1, dtype=torch.int64),
    )


def _checked(into: TopK, scores: Tensor, k: int) -> TopK:
    sizes = check("topk", scores=(scores, "R m"), values=(into.values, "R k"))
    if sizes["k"] != k:
        raise TlxError(f"topk: k is {k}, but into.values has k = {sizes['k']}.")
    if into.indices.shape != into.values.shape or into.indices.dtype != torch.int64:
        raise TlxError(
            f"topk: into.indices is {into.indices.dtype} {tuple(into.indices.shape)}, "
            f"expected torch.int64 {tuple(into.values.shape)}."
        )
    if into.indices.device != scores.device:
        raise TlxError(f"topk: into.indices is on {into.indices.device}, scores on {scores.device}.")
    if share(into.values, scores):
        raise TlxError("topk: into.values shares memory with scores.")
    return into


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Tensor, int], dict[str, Any]]:
    """A small call of `topk`, for self-tests: its positional and keyword arguments."""
    return (torch.randn(3, 300, dtype=dtype, generator=generator), 7), {"first": 5}
