"""What every experiment is: raw numbers of one seed at a time, and what all of them together say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data import FeaturePool, ImagePool, VisualWords, digits, glyphs, omniglot
from ..errors import DataError
from .outcome import Outcome

SOURCES = ("glyphs", "omniglot", "digits")


@dataclass(frozen=True)
class Setup:
    """The data an experiment runs on, and at which size.

    data      "glyphs", "omniglot" or "digits"
    path      of Omniglot's files
    quick     few tasks, small networks: the code runs, and figures say little
    progress  draw progress bars
    """

    data: str = "glyphs"
    path: str | None = None
    quick: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.data not in SOURCES:
            raise DataError(f"experiments run on {', '.join(SOURCES)}, not {self.data!r}")
        if self.data == "omniglot" and self.path is None:
            raise DataError("the data source omniglot needs the path of its files")

    def pool(self, split: str) -> ImagePool:
        """Images by class; "train" and "test" have no class in common."""
        if self.data == "glyphs":
            return glyphs(split)
        if self.data == "digits":
            return digits(split)
        return omniglot(self.path or "", split)

    def features(self, seed: int) -> tuple[FeaturePool, FeaturePool]:
        """The images of both splits as 34 standardised counts of visual words, the codebook learnt from "train"."""
        train, test = self.pool("train"), self.pool("test")
        words = VisualWords.fit(train, seed=seed)
        return FeaturePool(train, words), FeaturePool(test, words)

    def describe(self) -> dict[str, Any]:
        """What the numbers depend on; JSON."""
        return {"data": self.data, "quick": self.quick}


class Experiment(ABC):
    """A question about influence that data can answer.

    Everything a conclusion rests on is among the raw numbers, so that it can be drawn again, by others too.
    """

    name: str
    question: str

    @abstractmethod
    def one_seed(self, setup: Setup, seed: int) -> dict[str, Any]:
        """The raw numbers of one seed; JSON throughout."""

    @abstractmethod
    def conclude(self, setup: Setup, seeds: Mapping[int, dict[str, Any]]) -> Outcome:
        """Tables, drawings and findings from the raw numbers of all seeds."""
