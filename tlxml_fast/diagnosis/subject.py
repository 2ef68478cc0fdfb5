"""What the checks look at: a fitted influence, its scores of some test tasks, and exact curvature at a few tasks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..curvature import CurvatureOperator, Hessian
from ..distributed import World
from ..errors import InfluenceWarning, TlxError
from ..explained import Explained
from ..influence import TaskInfluence
from ..learners import Learner
from ..linearize import Linearization, linearize
from ..solvers import Certificate, FittedInverse
from ..task import TaskSet

# Up to so many parameters every eigenvalue of the exact Hessian is computed, else the two ends.
ALL_EIGENVALUES = 2_000
SAMPLE = {True: 64, False: 16}


@dataclass
class Subject:
    """A fitted `TaskInfluence` and test tasks. Nothing else in this package looks inside `TaskInfluence`.

    hessian_tasks  how many of the fitted tasks the exact Hessian is computed at, chosen evenly; unless given 64, or 16
                   above 2,000 parameters
    """

    influence: TaskInfluence
    tests: TaskSet
    target: str
    hessian_tasks: int | None

    def __post_init__(self) -> None:
        self.tests = TaskSet(self.tests)
        self.influence._require_fit()
        if self.inverse is None:
            raise TlxError("products of gradients use no curvature: there is no assumption to diagnose")
        if World.current().size > 1:
            raise TlxError("a diagnosis is made by one process, and this is a job of several")

    # ---- the run itself -----------------------------------------------------------------------------

    @property
    def report(self) -> dict[str, Any]:
        """What `fit` found."""
        return self.influence.report

    @property
    def learner(self) -> Learner:
        """At ω̂."""
        return self.influence.learner

    @property
    def inverse(self) -> FittedInverse | None:
        """H⁺ as the scores use it."""
        return self.influence._inverse

    @property
    def train(self) -> TaskSet:
        """The fitted tasks."""
        return self.influence._session.shards.tasks

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Their content hashes."""
        return self.influence._axis.ids

    @property
    def losses(self) -> Tensor:
        """L_t of the fitted tasks, [M], float64."""
        return self.influence._gradients.losses

    @property
    def confidences(self) -> Tensor:
        """The largest class probability of every query of theirs; none for regression."""
        return self.influence._gradients.confidences

    @property
    def q(self) -> int:
        """The number of meta-parameters."""
        return self.influence._session.shards.first.q

    @property
    def directions(self) -> int:
        """Directions that the fitted tasks contribute to the Gauss-Newton matrix at most: Σ_t n_t·r."""
        return sum(lin.gn_rank * lin.T for lin in self.influence._session.shards.linearizations())

    @property
    def dtype(self) -> torch.dtype:
        """Of the computations."""
        return self.influence._session.shards.first.dtype

    def significant(self, eigenvalues: Tensor) -> Tensor:
        """Which eigenvalues are not zero to rounding."""
        size = eigenvalues.abs()
        rounding = max(len(size) * torch.finfo(torch.float64).eps, torch.finfo(self.dtype).eps)
        return size > rounding * size.max()

    @cached_property
    def decay(self) -> Tensor:
        """δ of every meta-parameter, [q], float64."""
        decay, _ = self.influence._decay(self.influence._session.shards.first)
        return decay if self.influence.compression is None else decay[:1].expand(self.q).clone()

    @cached_property
    def pull(self) -> Tensor:
        """∇L(ω̂), as gradients are compressed: [q], float64."""
        _, decayed = self.influence._decay(self.influence._session.shards.first)
        return self.influence._gradients.mean() + decayed

    # ---- scores -------------------------------------------------------------------------------------

    @cached_property
    def test_gradients(self) -> Tensor:
        """∇_ω of every test task's target, as gradients are compressed: [n_test, q]."""
        with self._active():
            return self.influence._explain(self.tests, self.target, per_query=False).rows.double()

    def raw_test_gradients(self, count: int) -> Tensor:
        """∇_ω of the target of the first test tasks, never compressed: [count, q], float64."""
        own, learner = self.influence, self.learner.at_evaluation()
        found = Explained.of(learner, self.tests[:count], own._linearize, self.target, False, own.progress)
        return found.rows.double()

    @cached_property
    def _solved(self) -> tuple[Tensor, Certificate]:
        """H⁺ of the test gradients and, last, of ∇L, in one solve."""
        B = torch.cat([self.test_gradients, self.pull[None]])
        with self._active():
            return self.influence._solve(B, self.inverse)

    @property
    def solutions(self) -> Tensor:
        """H⁺g_i of every test task, [n_test, q], float64."""
        return self._solved[0][:-1]

    @property
    def newton_step(self) -> Tensor:
        """H⁺∇L, [q], float64."""
        return self._solved[0][-1]

    @property
    def certificate(self) -> Certificate:
        """Of the solves for the test tasks."""
        found = self._solved[1]
        return replace(found, residuals=found.residuals[:-1])

    @cached_property
    def values(self) -> Tensor:
        """I_perf(i, j), [n_test, n_train], float64."""
        return self._products(self.solutions)

    def values_by(self, inverse: FittedInverse) -> Tensor:
        """I_perf by another inverse of the same curvature."""
        B = self.test_gradients
        with self._active():
            return self._products(self.influence._solve(B, inverse).X)

    def solve_gradients(self, tasks: list[int]) -> Tensor:
        """H⁺g_j of some fitted tasks, [len(tasks), q], float64."""
        with self._active():
            rows = torch.stack([self.influence._gradients.row(j) for j in tasks])
            return self.influence._solve(rows, self.inverse).X

    def refitted(self, learner: Learner | None = None, **changed: Any) -> Tensor:
        """I_perf of the same tasks by an influence that differs in what is given."""
        own = self.influence
        settings = {
            "curvature": own.curvature,
            "inverse": own.inverse,
            "compression": own.compression,
            "memory": own._sessions.memory,
            "progress": own.progress,
            **own._linearize.keywords,
            **changed,
        }
        if learner is None:
            learner, settings["weight_decay"] = self.learner, own.weight_decay
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfluenceWarning)  # said of the run itself
            twin = TaskInfluence(learner, **settings).fit(self.train)
            return twin.scores(self.tests, target=self.target).values

    # ---- exactly ------------------------------------------------------------------------------------

    def exact_test(self, i: int) -> Linearization:
        """Test task i alone, in float64 on the reference: differences of its loss are taken."""
        return linearize(self.learner.at_evaluation(), self.tests[[i]], "reference", torch.float64)

    @contextmanager
    def exactly(self, chosen: Sequence[int]) -> Iterator[CurvatureOperator]:
        """(1/|S|) Σ_{t∈S} ∇²L_t + diag δ over some of the fitted tasks, by products."""
        tasks = self.train if len(chosen) == len(self.train) else self.train[chosen]
        with self.influence._sessions.active(tasks, stored=False) as session:
            yield CurvatureOperator(Hessian(), session.shards, self.decay, progress=self.influence.progress)

    @property
    def all_eigenvalues(self) -> bool:
        """Whether there are few enough parameters for every eigenvalue of the exact Hessian."""
        return self.q <= ALL_EIGENVALUES

    @property
    def sample(self) -> list[int]:
        """Which of the fitted tasks the exact Hessian is computed at."""
        M, most = len(self.train), self.hessian_tasks or SAMPLE[self.all_eigenvalues]
        return np.unique(np.linspace(0, M - 1, min(M, most)).round().astype(int)).tolist()

    # ---- inside -------------------------------------------------------------------------------------

    def _products(self, X: Tensor) -> Tensor:
        return self.influence._products(X, self.influence._gradients.blocks).cpu()

    @contextmanager
    def _active(self) -> Iterator[None]:
        with self.influence._session.active():
            yield
