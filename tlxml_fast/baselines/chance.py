"""No knowledge at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from scipy.special import ndtri

from ..learners import Learner
from ..scores import Scores
from ..task import Task, TaskSet
from .base import begun


def random(
    learner: Learner,
    train_tasks: TaskSet | Iterable[Task],
    test_tasks: TaskSet | Iterable[Task],
    seed: int = 0,
) -> Scores:
    """Standard normal numbers: what any method has to be better than.

    That of a pair hangs on the seed and on the content of its two tasks alone, not on their order or number.
    """
    baseline = begun("random", learner, train_tasks, test_tasks, seed=seed)
    train, test = baseline.train.ids, baseline.test.ids
    drawn = b"".join(hashlib.sha256(f"{seed}:{i}:{j}".encode()).digest()[:8] for i in test for j in train)
    uniform = ((np.frombuffer(drawn, "<u8") >> np.uint64(11)) + 0.5) * 2.0**-53
    return baseline.scores(torch.from_numpy(ndtri(uniform)).view(len(test), len(train)))
