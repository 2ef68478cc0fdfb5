"""Training to a minimum, and once more without some of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import LearnerError
from ..learners import Learner
from ..progress import progress_bar
from ..task import Task, TaskSet
from .bregman import ProximalBregman
from .minima import Minimum, Smooth, minimise
from .objective import Objective

Groups = Sequence[Sequence[int]]


def train_to_minimum(
    learner: Learner,
    tasks: TaskSet | Iterable[Task],
    weight_decay: float,
    tol: float = 1e-6,
    **settings: Any,
) -> tuple[Objective, Minimum]:
    """The objective of the tasks minimised from the learner's parameters, which become the minimum's.

    weight_decay  δ, recorded on the learner as `meta_train` records it
    settings      of `minimise`

    Raises LearnerError for parameters that are not float64, and what `Objective` and `minimise` raise; the learner is
    then as it was.
    """
    if any(p.dtype != torch.float64 for p in learner.parameters().values()):
        raise LearnerError("a minimum is found in float64: make the module double before the learner is made")
    objective = Objective(learner, tasks, weight_decay)
    found = minimise(objective, objective.start, tol, **settings)
    values = objective.buckets.linearizations[0].flat.unflatten(found.omega)
    with torch.no_grad():
        for name, p in learner.parameters().items():
            p.copy_(values[name])
    learner.weight_decay = objective.weight_decay
    learner.training = {
        "tasks": len(objective),
        "optimizer": "full batch",
        "weight_decay": objective.weight_decay,
        "gradient_norm": found.gradient_norm,
        "evaluations": found.evaluations,
    }
    return objective, found


def retrain_without(
    objective: Objective,
    groups: Groups,
    start: Tensor,
    tol: float = 1e-6,
    progress: bool = False,
    **settings: Any,
) -> list[Minimum]:
    """A minimum without each group of tasks, downhill from `start` [q].

    Started at ω̂ it is a minimum downhill from ω̂. Influence speaks of the path of minima that ω̂ follows as the weight of
    the group falls to nought, and this need not lead to the same one: the weight is taken away at once, and the steps
    of L-BFGS can be long enough to cross into a neighbouring basin. Started where training did, it is what training
    would have found, which may lie in another basin altogether.

    settings  of `minimise`; `scaling` where the start is near
    """
    return _each(objective.without, groups, start, "retrain", tol, progress, settings)


def bregman_responses(
    objective: Objective,
    groups: Groups,
    omega: Tensor,
    damping: float = 0.0,
    tol: float = 1e-6,
    progress: bool = False,
    **settings: Any,
) -> list[Minimum]:
    """The proximal Bregman response at ω̂ = `omega` to the removal of each group; see `ProximalBregman`."""

    def respond(group: Sequence[int]) -> ProximalBregman:
        return ProximalBregman(objective, omega, group, damping)

    return _each(respond, groups, omega, "proximal Bregman response", tol, progress, settings)


def _each(
    problem: Callable[[Sequence[int]], Smooth],
    groups: Groups,
    start: Tensor,
    description: str,
    tol: float,
    progress: bool,
    settings: dict[str, Any],
) -> list[Minimum]:
    found = []
    with progress_bar(description, len(groups), progress) as advance:
        for group in groups:
            found.append(minimise(problem(group), start, tol, **settings))
            advance(1, f"{found[-1].evaluations} evaluations")
    return found
