"""A description of tasks that can be written down and made again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DataError
from ..task import TaskSet
from .digits import digits
from .folder import folder
from .glyphs import glyphs
from .omniglot import omniglot
from .pool import ImagePool

SOURCES = ("glyphs", "digits", "omniglot", "folder")


@dataclass(frozen=True)
class TaskSpec:
    """`count` tasks of a data source: the same spec on the same data always makes the same tasks.

    source  "glyphs", "digits", "omniglot" or "folder"; the last two read `path`
    """

    source: str = "glyphs"
    path: str | None = None
    split: str = "train"
    count: int = 256
    ways: int = 5
    shots: int = 5
    queries: int = 15
    seed: int = 0
    image_size: int = 28

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise DataError(f"the data source is one of {', '.join(SOURCES)}, not {self.source!r}")
        if self.count < 1:
            raise DataError(f"there is at least 1 task, not {self.count}")
        if self.source in ("omniglot", "folder") and self.path is None:
            raise DataError(f"the data source {self.source} needs the path of its files")

    def pool(self) -> ImagePool:
        """The images by class."""
        if self.source == "glyphs":
            return glyphs(self.split, self.image_size)
        if self.source == "digits":
            return digits(self.split)
        if self.source == "omniglot":
            return omniglot(self.path or "", self.split, self.image_size)
        return folder(self.path or "", self.image_size, split=self.split)

    def tasks(self) -> TaskSet:
        """The tasks, made when they are asked for."""
        return self.pool().sample(self.count, self.ways, self.shots, self.queries, self.seed)

    def describe(self) -> dict[str, Any]:
        """The fields, JSON throughout; `TaskSpec(**spec.describe())` is the same spec."""
        return asdict(self)
