"""Scores of test tasks by training tasks: ours, and which ways others have."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import GaussNewton, TaskInfluence
from ..errors import InfluenceWarning
from ..learners import Learner
from ..ops._dispatch import backend_of
from ..scores import Scores
from ..solvers import Dense
from ..task import TaskSet
from .baselines import Plain
from .cases import not_run
from .general import CG, PRODUCTS, PULL_BACKS, General

Ways = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Problem:
    """What is computed, of which tasks."""

    learner: Learner
    train: TaskSet
    test: TaskSet
    damping: float
    dtype: torch.dtype

    def influence(self, backend: str | None = None) -> tuple[TaskInfluence, Scores]:
        """Ours, by the kernels of the device unless a backend is named."""
        backend = backend or backend_of(next(self.learner.module.parameters()).device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfluenceWarning)  # nobody trained the learner
            inverse = Dense(damping=self.damping)
            influence = TaskInfluence(self.learner, GaussNewton(), inverse, backend, self.dtype)
            return influence.fit(self.train), influence.scores(self.test)

    def solutions(self, influence: TaskInfluence) -> Tensor:
        """(G + damping·I)⁻¹ ∇L_i of every test task, ours: [test, q]."""
        return -torch.stack([influence.meta(task) for task in self.test]).to(self.dtype)

    def general(self, tolerance: float) -> General:
        """Theirs."""
        train, test = (Plain(self.learner, tasks, self.dtype) for tasks in (self.train, self.test))
        return General(train, test, self.damping, tolerance)


def available(general: General) -> tuple[Ways, dict[str, str]]:
    """The ways of general tools that can run here, and why others cannot."""
    ways = general.ways()
    try:
        general.product(1)
    except ImportError as error:
        return {PULL_BACKS: ways[PULL_BACKS]}, dict.fromkeys((CG, PRODUCTS), not_run(error))
    return ways, {}
