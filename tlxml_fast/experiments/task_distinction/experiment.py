"""The experiment of TLXML's section on task distinction, and what its reviewers missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...curvature import Curvature, GaussNewton, Hessian
from ...data import darken
from ...influence import TaskInfluence
from ...learners import Learner
from ...linearize import linearize
from ...progress import progress_bar
from ...scores import Scores
from ...solvers import Dense, Relative
from ...task import TaskSet
from ..base import Experiment, Setup
from ..outcome import Outcome
from ..subjects import QUERIES, SHOTS, WAYS, Subject, describe_fit, subjects
from .cases import ALPHAS, DAMPING, Numbers, cases_of
from .conclusions import findings, tables
from .drawings import drawings


class TaskDistinction(Experiment):
    """Self-ranks of training tasks among all of them, against the rank of the pseudo-inverse and against darkening.

    Of every subject and curvature: the eigenvalues; for each number of kept eigen-directions, and for a damped
    inverse, the rank and the score that each training task gives itself, plain and darkened by α. A self-rank of 1 is
    the best; the score itself is the more negative, the more helpful. (TLXML, arXiv 2501.14271, experiments on the
    distinction of tasks.)
    """

    name = "task-distinction"
    question = (
        "Does a test task that is one of the training tasks find itself to be the most helpful of them all, and does "
        "it lose that place as its images are darkened?"
    )

    def one_seed(self, setup: Setup, seed: int) -> Numbers:
        """The numbers of each subject and curvature, by name."""
        return {subject.name: _of_subject(subject, setup, seed) for subject in subjects(setup)}

    def conclude(self, setup: Setup, seeds: Mapping[int, Numbers]) -> Outcome:
        """Tables by number of kept directions and by α; the findings are about the paper's claims."""
        cases = cases_of(seeds)
        return Outcome(tables(cases), drawings(cases), findings(cases))


def _of_subject(subject: Subject, setup: Setup, seed: int) -> Numbers:
    count, darkened = (16, 6) if setup.quick else (128, 32)
    pool, others = subject.pools(setup, seed)
    tasks = TaskSet(pool.sample(count, WAYS, SHOTS, QUERIES, seed=seed))
    learner = subject.trained(tasks, setup, seed)
    darker = {alpha: _darker(subject, setup, seed, darkened, alpha) for alpha in ALPHAS}
    # the exact Hessian where its assembly is seconds
    curvatures = [GaussNewton()] if subject.images else [Hessian(), GaussNewton()]
    return {
        "tasks": count,
        "images": subject.images,
        "fit": describe_fit(learner, tasks, others.sample(count, WAYS, SHOTS, QUERIES, seed=seed + 1)),
        **_losses(learner, tasks),
        "curvatures": {
            curvature.name: _of_curvature(learner, curvature, tasks, darker, setup)
            for curvature in curvatures
        },
    }


def _darker(subject: Subject, setup: Setup, seed: int, count: int, alpha: float) -> TaskSet:
    """The first training tasks, their images darkened before words are counted."""
    pool = subject.pools(setup, seed)[0]
    images = pool if subject.images else pool.images
    tasks = darken(images.sample(count, WAYS, SHOTS, QUERIES, seed=seed), alpha)
    return TaskSet(tasks if subject.images else pool.words(tasks))


def _losses(learner: Learner, tasks: TaskSet) -> Numbers:
    lin = linearize(learner, tasks)
    confidence = lin.logits.softmax(-1).amax(-1).mean(1)
    return {"losses": lin.losses().tolist(), "confidences": confidence.tolist()}


def _of_curvature(
    learner: Learner, curvature: Curvature, tasks: TaskSet, darker: Mapping[float, TaskSet], setup: Setup
) -> Numbers:
    inverse = Dense(damping=Relative(DAMPING), negative="drop")
    influence = TaskInfluence(learner, curvature, inverse, progress=setup.progress).fit(tasks)
    eigenvalues = influence.report["curvature"]["spectrum"]["eigenvalues"]
    ranks = _ranks(eigenvalues)
    found: Numbers = {"eigenvalues": eigenvalues, "ranks": ranks, **_own(influence, tasks, ranks)}
    with progress_bar(f"{curvature.name}: darkened tasks", len(darker), setup.progress) as advance:
        dark = {}
        for alpha, changed in darker.items():
            dark[str(alpha)] = _own(influence, changed, ranks)
            advance()
    return {**found, "darkened": dark}


def _ranks(eigenvalues: Sequence[float]) -> list[int]:
    """Powers of two up to the numerical rank, float32 being what the matrix was computed in."""
    sizes = np.abs(eigenvalues)
    numerical = int((sizes > np.finfo(np.float32).eps * sizes.max()).sum())
    return [2**i for i in range(2, 30) if 2**i < numerical] + [numerical]


def _own(influence: TaskInfluence, tests: TaskSet, ranks: Sequence[int]) -> dict[str, Any]:
    """What the first training tasks give themselves: by every pseudo-inverse, then by the damped inverse."""
    scores = [*influence.rank_sweep(ranks, tests).scores, influence.scores(tests)]
    return {
        "self_ranks": [_self_ranks(each).tolist() for each in scores],
        "self_scores": [each.values.diagonal().tolist() for each in scores],
    }


def _self_ranks(scores: Scores) -> torch.Tensor:
    """1 + how many training tasks are more helpful to test task i than training task i is."""
    own = scores.values.diagonal()[:, None]
    return 1 + (scores.values < own).sum(1)
