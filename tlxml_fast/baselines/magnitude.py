"""The training task's own loss."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from ..learners import Learner
from ..linearize import linearize
from ..linearize.buckets import Buckets
from ..scores import Scores
from ..task import Task, TaskSet
from .base import begun


def loss_magnitude(
    learner: Learner,
    train_tasks: TaskSet | Iterable[Task],
    test_tasks: TaskSet | Iterable[Task],
    backend: str = "auto",
) -> Scores:
    """L_j, the same for every test task: what is learnt badly is taken to harm.

    One forward pass a training task. What practice looks at first when it suspects training data.
    """
    baseline = begun("loss magnitude", learner, train_tasks, test_tasks)
    buckets = Buckets(learner, baseline.train, partial(linearize, backend=backend))
    losses = torch.stack(buckets.gather(lambda lin, block: lin.losses()[block], lambda done: None))
    return baseline.scores(losses.expand(len(baseline.test), -1).clone())
