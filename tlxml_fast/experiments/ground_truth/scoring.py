"""The ways of scoring training tasks that are held against retraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import baselines
from ...curvature import Curvature, Fisher, GaussNewton, Hessian, Identity
from ...influence import TaskInfluence
from ...learners import Learner
from ...solvers import Dense, Inverse, Lanczos, Woodbury
from ...task import TaskSet

DAMPING = 1e-3
"""λ, beside δ, of every damped inverse and of the proximal Bregman response."""

Scorer = Callable[[Learner, TaskSet, TaskSet], np.ndarray]


@dataclass(frozen=True)
class Scoring:
    """I_perf or what is to stand for it, [n_test, M], of a trained learner, its training tasks and test tasks.

    change  whether −(1/M) Σ of the scores is a change of loss, and not only an order
    own     whether a task's score of itself says anything
    """

    name: str
    score: Scorer
    change: bool = False
    own: bool = False


def scorings(rank: int, seed: int) -> tuple[Scoring, ...]:
    """Influence by every curvature, then the baselines; `rank` directions for Lanczos."""
    return (
        _influence("Hessian, undamped", Hessian(), Dense(rtol=1e-9)),
        _influence("Hessian", Hessian(), Dense(damping=DAMPING)),
        _influence("Gauss-Newton", GaussNewton(), Dense(damping=DAMPING)),
        _influence("Fisher, 8 rows", Fisher(8, seed=seed), Woodbury(DAMPING)),
        _influence(f"Gauss-Newton, rank {rank}", GaussNewton(), Lanczos(rank, seed=seed)),
        _influence("gradient product", Identity(), None),
        _baseline("gradient cosine", baselines.gradient_cosine),
        _baseline("ascent steps", baselines.ascent, change=True, own=True),
        _baseline("embedding similarity", baselines.embedding_similarity),
        _baseline("loss magnitude", baselines.loss_magnitude),
        _baseline("random", baselines.random, seed=seed),
    )


def _influence(name: str, curvature: Curvature, inverse: Inverse | None) -> Scoring:
    def score(learner: Learner, train: TaskSet, test: TaskSet) -> np.ndarray:
        return TaskInfluence(learner, curvature, inverse).fit(train).scores(test).values.numpy()

    return Scoring(name, score, change=True, own=True)


def _baseline(
    name: str,
    scores: Callable[..., baselines.base.Scores],
    change: bool = False,
    own: bool = False,
    **settings: int,
) -> Scoring:
    def score(learner: Learner, train: TaskSet, test: TaskSet) -> np.ndarray:
        return scores(learner, train, test, **settings).values.numpy()

    return Scoring(name, score, change, own)
