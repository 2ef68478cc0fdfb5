"""What is kept of scores that come in tiles: the ends of their ranking, and sums over groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .distributed import World
from .errors import TlxError
from .ops.topk import K_MAX, TopK, topk
from .tiles import Tile, tiles


class Reduction(Protocol):
    """Is started once, and then takes every tile once, in the order of columns."""

    def start(self, X: Tensor) -> None:
        """X [n, d] are the directions: tiles are [n, m], of their dtype and device."""

    def update(self, tile: Tile) -> None:
        """Take a tile in."""

    def join(self, world: World) -> None:
        """Of several processes, each of which took the tiles of its own columns: make it that of all, in all."""


class Ends:
    """The k smallest and the k largest scores of every direction, in the order of `ops.topk`.

    k   1 to 1,024

    4·k·n numbers; one look at every score for each end.
    """

    smallest: TopK
    largest: TopK

    def __init__(self, k: int):
        if not 1 <= k <= K_MAX:
            raise TlxError(f"k = {k} is not between 1 and {K_MAX}, the most that is ranked of tiles")
        self.k = k

    def start(self, X: Tensor) -> None:
        """All places are empty."""
        shape = len(X), self.k
        self.smallest, self.largest = (
            TopK(X.new_full(shape, worst), X.new_full(shape, -1, dtype=torch.int64))
            for worst in (torch.inf, -torch.inf)
        )

    def update(self, tile: Tile) -> None:
        """Merge a tile into what the tiles before left."""
        topk(tile.values, self.k, first=tile.first, largest=False, into=self.smallest)
        topk(tile.values, self.k, first=tile.first, into=self.largest)

    def join(self, world: World) -> None:
        """The ends of all columns: the same bits as those of one process."""
        for name, largest in (("smallest", False), ("largest", True)):
            values, indices = getattr(self, name)
            each = zip(*(world.cat(x).split(len(x)) for x in (values, indices)), strict=True)
            setattr(self, name, merged([TopK(*part) for part in each], largest))


class GroupSums:
    """S_iJ = Σ_{j∈J} I(i, j), float64, for every group J of columns: summed in their order, so the same for any tiles.

    Of several processes it is the sum of theirs.

    member   [N] int64, the group of every column from the first on
    groups   their number
    first    the column that member[0] is of

    n·groups numbers.
    """

    values: Tensor
    """[n, groups]."""

    def __init__(self, member: Tensor, groups: int, first: int = 0):
        self.member, self.groups, self.first = member, groups, first

    def start(self, X: Tensor) -> None:
        """All sums are 0."""
        self.values = X.new_zeros(len(X), self.groups, dtype=torch.float64)

    def update(self, tile: Tile) -> None:
        """Add a tile's columns, each to its group's."""
        at = tile.first - self.first
        # not a matrix product: 0·∞ would spread one task's infinite score to all groups
        member = self.member[at : at + tile.values.shape[1]].to(self.values.device)
        self.values.index_add_(1, member, tile.values.double())

    def join(self, world: World) -> None:
        """The processes' sums, added."""
        world.sum(self.values)


def reduce_tiles(X: Tensor, blocks: Iterable[Tensor], *reductions: Reduction, first: int = 0) -> None:
    """One pass over −X·gᵀ of every training gradient g for all of the reductions; arguments as of `tiles`.

    Tiles are made by all threads and reduced by the caller's.
    """
    for reduction in reductions:
        reduction.start(X)
    for tile in tiles(X, blocks, first):
        for reduction in reductions:
            reduction.update(tile)


def ranked(X: Tensor, blocks: Iterable[Tensor], k: int, first: int = 0) -> Ends:
    """The k smallest and largest of −X·gᵀ in one pass; of a process's own columns from `first` on, to be `merged`."""
    ends = Ends(k)
    reduce_tiles(X, blocks, ends, first=first)
    return ends


def merged(parts: Sequence[TopK], largest: bool) -> TopK:
    """The best of all columns from the best of disjoint sets of them, in any order.

    The same bits as one pass over all columns: values are only moved, and ties are ordered by column. Columns that a
    part has fewer of than k are empty places, index −1.

    Raises TlxError where the parts are not of one shape, dtype and device.
    """
    shapes = {(p.values.shape, p.values.dtype, p.values.device, p.indices.shape) for p in parts}
    if len(shapes) != 1:
        raise TlxError(f"{len(parts)} partial rankings of {len(shapes)} different shapes, dtypes or devices")
    k = parts[0].values.shape[1]
    values, indices = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    # by column, empty places last and as NaN: topk orders equal scores, and NaN, by place
    by_column, order = indices.where(indices >= 0, torch.iinfo(torch.int64).max).sort(dim=1)
    empty = by_column == torch.iinfo(torch.int64).max
    best = topk(values.gather(1, order).masked_fill(empty, torch.nan), k, largest=largest)
    order = order.gather(1, best.indices)
    # the values as they were, so that empty places hold their infinity again
    return TopK(values.gather(1, order), indices.gather(1, order))
