"""Images by class, and the tasks drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from ..errors import DataError
from ..task import Task, TaskSet

PARTITION_TRIES = 200


class Images(Protocol):
    """uint8 images [N, C, H, W]: an array, or anything that loads the rows it is asked for."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


class ImagePool:
    """Images by class, from which tasks are drawn.

    images    uint8 [N, C, H, W], in memory or loaded when they are asked for
    labels    [N] index into `classes`; −1 leaves an image out
    classes   the name of each class
    groups    the group of each class (a script, an alphabet), "" where there is none
    sources   [N] what an image was made from (the face of a glyph), or None. The support and the query set
              of a task never share a source.
    within_groups   whether `sample` draws all classes of a task from one group, unless told otherwise

    Raises DataError if the parts do not fit together or a class has no image.
    """

    def __init__(
        self,
        images: Images,
        labels: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        groups: Sequence[str] | None = None,
        sources: Sequence[int] | np.ndarray | None = None,
        *,
        name: str = "pool",
        split: str = "all",
        within_groups: bool = False,
    ):
        self.images = images
        self.labels = np.asarray(labels)
        self.classes = tuple(classes)
        self.groups = tuple(groups) if groups is not None else ("",) * len(self.classes)
        self.sources = None if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
        self.name, self.split, self.within_groups = name, split, within_groups
        self._check()

    def __repr__(self) -> str:
        groups = len(set(self.groups) - {""})
        within = f" in {groups} groups" if groups else ""
        size = "×".join(map(str, self.images.shape[1:]))
        return f"ImagePool({self.label}: {len(self)} images of {size}, {len(self.classes)} classes{within})"

    def __len__(self) -> int:
        return int((self.labels >= 0).sum())

    @property
    def label(self) -> str:
        """The name and the split, as errors and reports show them."""
        return self.name if self.split == "all" else f"{self.name}/{self.split}"

    @property
    def in_channels(self) -> int:
        """C of the images [C, H, W]."""
        return int(self.images.shape[1])

    @property
    def image_size(self) -> int:
        """H of the images [C, H, W]; H = W in every data set here."""
        return int(self.images.shape[2])

    @cached_property
    def rows(self) -> tuple[np.ndarray, ...]:
        """For each class, the positions of its images."""
        order = np.argsort(self.labels, kind="stable")
        bounds = np.searchsorted(self.labels[order], np.arange(len(self.classes) + 1))
        return tuple(order[start:stop] for start, stop in pairwise(bounds))

    @cached_property
    def source_counts(self) -> np.ndarray | None:
        """[classes, sources] how many images of each class come from each source; None without sources."""
        if self.sources is None:
            return None
        counts = np.zeros((len(self.classes), int(self.sources.max()) + 1), np.int64)
        kept = self.labels >= 0
        np.add.at(counts, (self.labels[kept], self.sources[kept]), 1)
        return counts

    def select(self, classes: Iterable[str | int], split: str | None = None) -> ImagePool:
        """The pool of some classes, given by name or by position, in the order given; images are shared.

        Raises DataError for a class that is not there or is named twice.
        """
        position = {name: i for i, name in enumerate(self.classes)}
        chosen = []
        for wanted in classes:
            found = position.get(wanted) if isinstance(wanted, str) else int(wanted)
            if found is None or not 0 <= found < len(self.classes):
                raise DataError(f"{self.label} has no class {wanted!r}")
            chosen.append(found)
        if len(set(chosen)) < len(chosen):
            raise DataError(f"{self.label}: a class is selected twice")
        renumber = np.full(len(self.classes) + 1, -1)  # the last entry keeps −1 at −1
        renumber[chosen] = np.arange(len(chosen))
        return ImagePool(
            self.images,
            renumber[self.labels],
            [self.classes[i] for i in chosen],
            [self.groups[i] for i in chosen],
            self.sources,
            name=self.name,
            split=self.split if split is None else split,
            within_groups=self.within_groups,
        )

    def sample(
        self,
        n_tasks: int,
        ways: int,
        shots: int,
        queries: int,
        seed: int = 0,
        within_groups: bool | None = None,
    ) -> TaskSet:
        """`n_tasks` tasks, each made when it is asked for.

        A task has `ways` classes, ways·shots support and ways·queries query images, float32 in [0, 1],
        grouped by class; which class has which label is random. Task i depends on (seed, i) and the pool
        alone. Within groups, a group is drawn uniformly among those of at least `ways` classes.

        Raises DataError, before anything is drawn, if classes or images are too few.
        """
        grouped = self.within_groups if within_groups is None else within_groups
        sampler = _Sampler(self, ways, shots, queries, seed, grouped)
        return TaskSet.lazy(sampler, n_tasks, name=self.label)

    def _check(self) -> None:
        if len(self.images.shape) != 4:
            raise DataError(f"{self.label}: images have shape {tuple(self.images.shape)}, not [N, C, H, W]")
        if isinstance(self.images, np.ndarray) and self.images.dtype != np.uint8:
            raise DataError(f"{self.label}: images have dtype {self.images.dtype}, not uint8")
        for field, array in (("labels", self.labels), ("sources", self.sources)):
            if array is not None and array.shape != (self.images.shape[0],):
                raise DataError(f"{self.label}: {self.images.shape[0]} images and {field} {array.shape}")
        if len(self.groups) != len(self.classes):
            raise DataError(f"{self.label}: {len(self.classes)} classes and {len(self.groups)} groups")
        if len(set(self.classes)) < len(self.classes):
            raise DataError(f"{self.label}: two classes have the same name")
        if self.labels.size and not -1 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(f"{self.label}: a label lies outside −1 … {len(self.classes) - 1}")
        empty = np.setdiff1d(np.arange(len(self.classes)), self.labels)
        if empty.size:
            raise DataError(f"{self.label}: class {self.classes[empty[0]]!r} has no image")


@dataclass(frozen=True)
class _Sampler:
    """Makes the task of an index. Checks on construction that the pool is large enough."""

    pool: ImagePool
    ways: int
    shots: int
    queries: int
    seed: int
    grouped: bool

    def __post_init__(self) -> None:
        for field in ("ways", "shots", "queries"):
            if getattr(self, field) < 1:
                raise DataError(
                    f"{self.pool.label}: {field} is {getattr(self, field)}; it must be at least 1"
                )
        if self.seed < 0:
            raise DataError(f"{self.pool.label}: seed is {self.seed}; it must not be negative")
        for _, members in self.candidates:
            for index in members:
                self._check_class(index)

    def __call__(self, index: int) -> Task:
        rng = np.random.default_rng([self.seed, index])
        group, members = self.candidates[rng.integers(len(self.candidates))]
        classes = rng.choice(
            members, self.ways, replace=False
        )  # in random order: labels carry no information
        support, query = self._draw_rows(rng, classes)
        name = "-".join([part for part in (self.pool.split, group) if part] or ["task"]) + f"-{index:04d}"
        labels = torch.arange(self.ways)
        return Task(
            self._load(support),
            labels.repeat_interleave(self.shots),
            self._load(query),
            labels.repeat_interleave(self.queries),
            name=name,
            group=group,
        )

    @cached_property
    def candidates(self) -> list[tuple[str, np.ndarray]]:
        """(group, its classes) for every group a task can be drawn from; one group "" for all classes."""
        groups = np.asarray(self.pool.groups if self.grouped else [""] * len(self.pool.classes))
        members = {str(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
        large = [(group, found) for group, found in members.items() if len(found) >= self.ways]
        if not large:
            most = max(members, key=lambda group: len(members[group]), default="")
            held = len(members.get(most, ()))
            where = f"its largest group, {most!r}, has" if self.grouped else "it has"
            raise DataError(
                f"{self.pool.label}: a {self.ways}-way task needs {self.ways} classes, {where} {held}"
            )
        return large

    def _check_class(self, index: int) -> None:
        """Refuses a class that cannot fill its part of a task, whatever the other classes are."""
        name, held = self.pool.classes[index], len(self.pool.rows[index])
        needed = f"a task takes {self.shots} for support and {self.queries} for query"
        if held < self.shots + self.queries:
            raise DataError(f"{self.pool.label}: class {name!r} has {held} images, {needed}")
        if self.pool.source_counts is None:
            return
        reachable = 1  # bit s is set when some set of sources holds exactly s images
        for count in self.pool.source_counts[index].tolist():
            reachable |= reachable << count
        if not any(reachable >> s & 1 for s in range(self.shots, held - self.queries + 1)):
            sources = int((self.pool.source_counts[index] > 0).sum())
            raise DataError(
                f"{self.pool.label}: class {name!r} has {held} images from {sources} sources, "
                f"{needed}, and no source can serve both"
            )

    def _draw_rows(self, rng: np.random.Generator, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the support images [ways·shots] and of the query images [ways·queries]."""
        support, query = [], []
        chosen = None if self.pool.sources is None else self._support_sources(rng, classes)
        for index in classes:
            rows = self.pool.rows[index]
            if chosen is None:
                drawn = rng.choice(rows, self.shots + self.queries, replace=False)
                support.append(drawn[: self.shots])
                query.append(drawn[self.shots :])
            else:
                for_support = np.isin(self.pool.sources[rows], chosen)
                support.append(rng.choice(rows[for_support], self.shots, replace=False))
                query.append(rng.choice(rows[~for_support], self.queries, replace=False))
        return np.concatenate(support), np.concatenate(query)

    def _support_sources(self, rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
        """A random set of sources that leaves every class enough images on both sides.

        Each try orders the sources at random and looks at all prefixes of that order at once.
        """
        counts = self.pool.source_counts[classes]
        present = np.flatnonzero(counts.sum(0))
        for _ in range(PARTITION_TRIES):
            order = rng.permutation(present)
            taken = counts[:, order].cumsum(1)
            left = taken[:, -1:] - taken
            sizes = np.flatnonzero(((taken >= self.shots) & (left >= self.queries)).all(0)) + 1
            if sizes.size:
                return order[: rng.choice(sizes)]
        names = ", ".join(repr(self.pool.classes[i]) for i in classes)
        raise DataError(
            f"{self.pool.label}: no split of {len(present)} sources into support and query found in "
            f"{PARTITION_TRIES} tries gives each of {names} {self.shots} + {self.queries} images"
        )

    def _load(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.pool.images[rows].astype(np.float32) / np.float32(255))
