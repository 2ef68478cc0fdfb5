"""Scores that are never all in memory: each question is answered by a pass over the training gradients."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .distributed import World
from .errors import TlxError
from .files import write_json
from .gemm import library
from .memory import require
from .ops.topk import TopK
from .reductions import Ends, GroupSums, Reduction, reduce_tiles
from .scores import Ranking, Scores, TaskAxis, converged
from .targets import LARGER_IS_BETTER
from .tiles import Tile, check_blocks, tiles


class BothEnds(NamedTuple):
    """The ends of the ranking."""

    helpful: Ranking
    harmful: Ranking


class Extent(NamedTuple):
    """Of the scores of each test task, float64: the least and the greatest number, and the mean."""

    minimum: Tensor
    maximum: Tensor
    mean: Tensor


@dataclass(frozen=True)
class StreamedScores:
    """I_perf(i, j) = −(H⁺∇L_i)·∇L_j (TLXML, arXiv 2501.14271), as `Scores`, of more pairs than fit in memory.

    solved   [n_test, d], or [n_test, n_query, d] per query: H⁺∇L_i. Its dtype, float32 or float64, is that of the
             products; queries that a test task does not have are NaN
    blocks   the stored ∇L_j, [m_b, d] each, in the order of `train`; see `tiles.tiles` for dtypes. A sequence that maps
             a block when it is asked for, such as `TensorFiles`, is never all in memory
    test, train, in_fit, target, info   as of `Scores`; what is multiplied by what is added to info as "tiles"
    world    the processes, each with the blocks of its own consecutive columns; all ask the same, and get the same

    Every method that needs scores passes over all blocks once: 2·n_test·n_train·d flops, and the bytes of the blocks.
    `ranked` finds both ends in one pass, which is remembered for any smaller k; `reduce` answers several questions in
    one. The ends of the ranking have the values, order and ties of the dense matrix's, in the precision of `solved`.

    Raises TlxError where shapes and dtypes do not fit together.
    """

    solved: Tensor
    blocks: Sequence[Tensor]
    test: TaskAxis
    train: TaskAxis
    in_fit: Tensor
    target: str = "loss"
    info: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)
    _first: int = field(default=0, init=False, repr=False)
    _found: list[Ends] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.solved.ndim not in (2, 3) or len(self.solved) != len(self.test):
            raise TlxError(
                f"solved directions of shape {tuple(self.solved.shape)} for {len(self.test)} test tasks"
            )
        mine, dtypes = check_blocks(self._directions, self.blocks)
        each = self.world.items([[mine, sorted(map(_name, dtypes))]])
        columns = sum(count for count, _ in each)
        if not len(self.train) == len(self.in_fit) == columns:
            raise TlxError(
                f"{columns} training gradients, {len(self.in_fit)} marks in in_fit and {len(self.train)} training tasks"
            )
        about = {
            "dtype": _name(self.solved.dtype),
            "stored": sorted({name for _, names in each for name in names}),
            "product": library(self.solved.dtype, self.solved.device.type),
        }
        object.__setattr__(self, "info", {**self.info, "tiles": about})
        object.__setattr__(self, "_first", sum(count for count, _ in each[: self.world.rank]))

    def __repr__(self) -> str:
        sizes = (*self.solved.shape[:-1], len(self.train))
        shape = " × ".join(f"{size:,} {dim}" for size, dim in zip(sizes, self.dims, strict=True))
        return f"StreamedScores({shape}, target={self.target!r}{'' if self.converged else ', not converged'})"

    @property
    def converged(self) -> bool:
        """Whether every solve reached its tolerance, as of `Scores`."""
        return converged(self.info)

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the dimensions that the matrix would have."""
        return ("test", "train") if self.solved.ndim == 2 else ("test", "query", "train")

    # ---- answers ------------------------------------------------------------------------------------

    def helpful(self, k: int) -> Ranking:
        """The k training tasks that most lowered each test task's loss, the most helpful first; k ≤ 1,024."""
        return self.ranked(k).helpful

    def harmful(self, k: int) -> Ranking:
        """The k training tasks that most raised each test task's loss, the most harmful first; k ≤ 1,024."""
        return self.ranked(k).harmful

    def ranked(self, k: int) -> BothEnds:
        """Both, of one pass; none if so many were found before."""
        if not 1 <= k <= len(self.train):
            raise TlxError(f"k = {k} is not between 1 and the {len(self.train)} training tasks")
        if not self._found or self._found[0].k < k:
            self._found[:] = self.reduce(Ends(k))
        return self.both_ends(self._found[0], k)

    def both_ends(self, ends: Ends, k: int | None = None) -> BothEnds:
        """What a pass left, or the first k of it, as rankings by the sign of the target."""
        smallest, largest = (self._ranking(end, k or ends.k) for end in (ends.smallest, ends.largest))
        return BothEnds(largest, smallest) if self.target in LARGER_IS_BETTER else BothEnds(smallest, largest)

    def group(self, labels: Sequence[str] | None = None, reduce: str = "sum") -> Scores:
        """The influence of groups of training tasks, as `Scores.group`: [n_test, groups], in memory."""
        # the groups of no test tasks: all but the values
        nothing = torch.empty(0, len(self.train), dtype=torch.float64)
        empty = Scores(nothing, TaskAxis((), (), ()), self.train, self.in_fit, self.target, self.info)
        empty = empty.group(labels, reduce)
        number = {name: i for i, name in enumerate(empty.train.names)}
        member = torch.tensor(
            [number[str(label)] for label in (self.train.groups if labels is None else labels)]
        )
        (sums,) = self.reduce(GroupSums(member, len(number)))
        values = sums.values.cpu()
        if reduce == "mean":
            values = values / torch.tensor(list(empty.info["group_sizes"].values()))
        return replace(empty, values=self._shaped(values), test=self.test)

    def extent(self) -> Extent:
        """Minimum, maximum and mean over training tasks, [n_test] each (or [n_test, n_query]).

        NaN is neither least nor greatest, unless every score is; the mean of scores with a NaN is NaN.
        """
        member = torch.zeros(len(self.train), dtype=torch.int64)
        ends, total = self.reduce(Ends(1), GroupSums(member, 1))
        least, greatest, sums = (
            x.double().cpu() for x in (ends.smallest.values, ends.largest.values, total.values)
        )
        return Extent(*(self._shaped(x)[..., 0] for x in (least, greatest, sums / len(self.train))))

    def reduce(self, *reductions: Reduction) -> tuple[Reduction, ...]:
        """One pass for all of the reductions, which are given back: `Ends`, `GroupSums`, or another `Reduction`.

        They see queries as so many more test tasks, and scores by their value: `both_ends` knows the sign.
        """
        if self.world.size > 1:
            for reduction in reductions:
                if getattr(type(reduction), "join", Reduction.join) is Reduction.join:
                    raise TlxError(
                        f"{type(reduction).__name__} has no `join`: each of {self.world.size} processes would have "
                        "its own answer"
                    )
        reduce_tiles(self._directions, self.blocks, *reductions, first=self._first)
        if self.world.size > 1:
            for reduction in reductions:
                reduction.join(self.world)
        return reductions

    # ---- the scores themselves ----------------------------------------------------------------------

    def tiles(self, columns: int = 65_536) -> Iterator[Tile]:
        """The scores of `columns` training tasks at a time: `first`, the position of the first, and `values`.

        Of several processes, each has those of its own training tasks.

        values   [n_test, m] or [n_test, n_query, m], in the dtype of `solved`; the last tile may be narrower
        """
        if columns < 1:
            raise TlxError(f"a tile has at least one column, not {columns}")
        first = self._first
        for blocks in _regrouped(self.blocks, columns):
            values = torch.cat([tile.values for tile in tiles(self._directions, blocks)], 1)
            yield Tile(first, self._shaped(values))
            first += values.shape[1]

    def materialize(self) -> Scores:
        """All scores, [n_test, n_train] in float64. TlxError where that needs more memory than is free or allowed."""
        directions = self._directions
        needed = 8 * len(directions) * len(self.train)
        require(needed, f"a matrix of {len(directions):,} × {len(self.train):,} scores")
        values = torch.zeros(len(directions), len(self.train), dtype=torch.float64)
        for tile in tiles(directions, self.blocks, self._first):
            values[:, tile.first : tile.first + tile.values.shape[1]] = tile.values
        self.world.sum(values)  # of which each process has other columns
        return Scores(self._shaped(values), self.test, self.train, self.in_fit, self.target, self.info)

    @property
    def values(self) -> Tensor:
        """`materialize().values`: a pass, each time it is asked for."""
        return self.materialize().values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all scores as `Scores.save` does, for `Scores.load`; refused where `materialize` is."""
        self.materialize().save(path)

    def save_ranked(self, path: str | os.PathLike[str], k: int) -> None:
        """Write both ends of the ranking, `ranked(k)`, as JSON.

            {"target": …, "test": [{"name", "group", "helpful": [{"train", "group", "position", "score"}, …],
             "harmful": […]}, …], "info": …}

        The best of an end comes first; `position` is that of a training task among all. Of scores per query, "queries"
        has both ends of each.
        """
        ends = self.ranked(k)

        def of(*at: int) -> dict[str, Any]:
            return {end: self._listed(ranking, at) for end, ranking in zip(ends._fields, ends, strict=True)}

        tests = [
            {
                "name": name,
                "group": group,
                **(
                    of(i)
                    if self.solved.ndim == 2
                    else {"queries": [of(i, j) for j in range(self.solved.shape[1])]}
                ),
            }
            for i, (name, group) in enumerate(zip(self.test.names, self.test.groups, strict=True))
        ]
        write_json(path, {"target": self.target, "test": tests, "info": dict(self.info)})

    # ---- inside -------------------------------------------------------------------------------------

    @property
    def _directions(self) -> Tensor:
        """[rows, d]: a row a test task, or a query."""
        return self.solved.flatten(0, -2)

    def _shaped(self, values: Tensor) -> Tensor:
        return values.unflatten(0, self.solved.shape[:-1])

    def _listed(self, ranking: Ranking, at: tuple[int, ...]) -> list[dict[str, Any]]:
        positions, values = ranking.indices[at].tolist(), ranking.values[at].tolist()
        names, groups = self.train.names, self.train.groups
        return [
            {"train": names[j], "group": groups[j], "position": j, "score": value}
            for j, value in zip(positions, values, strict=True)
        ]

    def _ranking(self, end: TopK, k: int) -> Ranking:
        indices, values = (self._shaped(x[:, :k].cpu()) for x in (end.indices, end.values))
        return Ranking(indices, values.double())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _regrouped(blocks: Sequence[Tensor], columns: int) -> Iterator[list[Tensor]]:
    """The same rows in the same order, as lists that have `columns` rows each, but for the last."""
    group: list[Tensor] = []
    missing = columns
    for block in blocks:
        while len(block):
            group.append(block[:missing])
            block = block[missing:]
            missing -= len(group[-1])
            if not missing:
                yield group
                group, missing = [], columns
    if group:
        yield group
