"""Gradients compared by their direction."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from ..curvature import Identity
from ..errors import InfluenceWarning
from ..influence import TaskInfluence
from ..learners import Learner
from ..scores import Scores
from ..task import Task, TaskSet


def gradient_cosine(
    learner: Learner,
    train_tasks: TaskSet | Iterable[Task],
    test_tasks: TaskSet | Iterable[Task],
    backend: str = "auto",
    progress: bool = False,
) -> Scores:
    """−cos(∇L_i, ∇L_j): `TaskInfluence` with Identity(normalize=True), no curvature.

    A gradient of each task. (Charpiat et al., Input similarity from the neural network perspective, NeurIPS 2019.)
    """
    influence = TaskInfluence(learner, Identity(normalize=True), backend=backend, progress=progress)
    with warnings.catch_warnings():
        # of stationarity and of a vanishing output Hessian: a cosine assumes neither
        warnings.simplefilter("ignore", InfluenceWarning)
        influence.fit(train_tasks)
    return influence.scores(test_tasks)
