"""What an evaluation of the objective takes by the engine, and in a full-batch loop of torch.func."""

from __future__ import annotations

from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from ...learners import Episode, Learner
from ...retraining import Objective
from ...timing import seconds

REPEATS = 7


def seconds_of_an_evaluation(learner: Learner, objective: Objective, omega: Tensor) -> dict[str, float]:
    """Of the value with its gradient, by both; torch.func has all tasks in one vmap, as a careful user writes it.

    They agree, which is checked before anything is timed.
    """
    (lin,) = objective.buckets.linearizations
    x, y, query = (torch.stack(tensors) for tensors in zip(*lin.episodes, strict=True))

    def loss(w: Tensor, x: Tensor, y: Tensor, query: Tensor, query_y: Tensor) -> Tensor:
        return learner.loss(
            learner.query_logits(lin.flat.unflatten(w), Episode(x, y, query), lin.ways), query_y
        )

    each = vmap(grad_and_value(loss), (None, 0, 0, 0, 0))

    def by_torch(w: Tensor) -> Tensor:
        gradients, _ = each(w, x, y, query, lin.targets)
        return objective.weights @ gradients + objective.weight_decay * w

    def by_engine(w: Tensor) -> Tensor:
        return objective.value_and_gradient(w)[1]

    torch.testing.assert_close(by_engine(omega), by_torch(omega), rtol=1e-8, atol=1e-10)
    moved = [omega + i * 1e-6 for i in range(REPEATS)]
    ways = {"engine": by_engine, "torch.func": by_torch}
    # in turn, so that what else the machine does slows both
    taken = [{name: seconds(partial(way, w)) for name, way in ways.items()} for w in moved]
    return {name: median(each[name] for each in taken) for name in ways}
