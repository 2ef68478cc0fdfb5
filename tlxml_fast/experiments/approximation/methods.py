"""What a method is: a way to score, with what it takes."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...compression import Compression
from ...curvature import Curvature, Fisher, Hessian
from ...errors import InfluenceWarning
from ...influence import TaskInfluence
from ...learners import Learner
from ...scores import Scores
from ...solvers import Inverse, Relative
from ...task import TaskSet
from .memory import held

Damped = Callable[[float | Relative], Inverse]


@dataclass(frozen=True)
class Problem:
    """A trained learner, the tasks that explain it and those that are explained, and the dampings to do it at.

    store   an empty directory, for the factors of what is too dear to compute twice
    """

    learner: Learner
    train: TaskSet
    test: TaskSet
    dampings: Sequence[float | Relative]
    store: Path

    @property
    def parameters(self) -> int:
        """q."""
        return sum(p.numel() for p in self.learner.parameters().values())

    @property
    def rank(self) -> int:
        """n(C − 1), the rows of a task's Gauss-Newton matrix."""
        task = self.train[0]
        return len(task.query_x) * (task.ways - 1)


@dataclass(frozen=True)
class Found:
    """Scores at every damping, or once for all of them; and what those at the first one took.

    seconds  from the trained learner to scores; None where a factor was there already
    bytes    held beside the learner and the tasks
    """

    scores: Sequence[Scores]
    seconds: float | None
    bytes: int


@dataclass(frozen=True)
class Method(ABC):
    """A way to score.

    family  which of the few kinds of method it belongs to
    """

    name: str
    family: str

    @abstractmethod
    def run(self, problem: Problem) -> Found:
        """Scores of the problem's tasks. Raises CurvatureError where the method is refused."""


@dataclass(frozen=True)
class ByInfluence(Method):
    """`TaskInfluence` with a curvature and an inverse.

    inverse   from the damping; None where the curvature needs none
    damped    whether scores depend on the damping
    shared    the factor is that of another method of the same curvature, which ran before
    """

    curvature: Curvature
    inverse: Damped | None = None
    compression: Compression | None = None
    damped: bool = True
    shared: bool = False

    def run(self, problem: Problem) -> Found:
        """Fitted once; the further dampings come from the same factorisation."""
        first, *others = problem.dampings if self.damped else problem.dampings[:1]
        inverse = None if self.inverse is None else self.inverse(first)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfluenceWarning)  # the numbers it is about are among the results
            start = time.perf_counter()
            influence = TaskInfluence(
                problem.learner,
                self.curvature,
                inverse,
                compression=self.compression,
                store=problem.store if isinstance(self.curvature, Hessian) else None,
            ).fit(problem.train)
            scores = [influence.scores(problem.test)]
            seconds = None if self.shared else time.perf_counter() - start
        if others:
            scores += influence.damping_sweep(others, problem.test).scores
        rows = len(problem.train) * (
            self.curvature.rows_per_task if isinstance(self.curvature, Fisher) else problem.rank
        )
        numbers = problem.parameters if self.compression is None else self.compression.dimension
        return Found(
            scores, seconds, held(inverse, len(problem.train), rows, numbers, self.compression is not None)
        )


@dataclass(frozen=True)
class Baseline(Method):
    """One of `tlx.baselines`.

    held   bytes, of a problem and its scores
    """

    score: Callable[[Learner, TaskSet, TaskSet], Scores]
    held: Callable[[Problem, Scores], int]

    def run(self, problem: Problem) -> Found:
        """The scores, which know no damping."""
        start = time.perf_counter()
        scores = self.score(problem.learner, problem.train, problem.test)
        return Found([scores], time.perf_counter() - start, self.held(problem, scores))
