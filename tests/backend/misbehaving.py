"""Backends whose fault is not that of one call, which the conformance suite must catch."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from tlxml_fast import TaskSet
from tlxml_fast.backend import Scored
from tlxml_fast.backend.ours import Fitted, Ours
from tlxml_fast.learners.body import Body


class Meddler(Ours):
    """Trains the module a little while it looks at it."""

    def linearize(self, learner, tasks, dtype=None):
        with torch.no_grad():
            next(iter(learner.module.parameters())).add_(1e-12)
        return super().linearize(learner, tasks, dtype)


@dataclass(frozen=True)
class WithoutDecay(Ours):
    """By some curvatures, δ is what is given (0 where nothing is) or 0, whatever training recorded."""

    of: tuple[str, ...] = ()
    takes_what_is_given: bool = True

    def influence(self, learner, train_tasks, *, curvature="gauss_newton", weight_decay=None, **named):
        if curvature in self.of:
            learner = copy.copy(learner)
            learner.weight_decay = None
            weight_decay = weight_decay if self.takes_what_is_given else 0.0
        return super().influence(
            learner, train_tasks, curvature=curvature, weight_decay=weight_decay, **named
        )


class TrainsOnTests(Ours):
    """Adapts test tasks as training does."""

    def influence(self, learner, train_tasks, **named):
        learner = copy.copy(learner)
        learner.inner_steps_eval = None
        return super().influence(learner, train_tasks, **named)


class FirstShape(Ours):
    """The curvature is that of the training tasks of the first shape; the scores are of all."""

    def influence(self, learner, train_tasks, **named):
        first = TaskSet([task for task in train_tasks if task.shape == train_tasks[0].shape])
        return OfAll(super().influence(learner, first, **named).influence, train_tasks)


@dataclass(frozen=True)
class OfAll(Fitted):
    """Scores of other training tasks than the fitted ones."""

    train_tasks: TaskSet

    def scores(self, test_tasks):
        values = self.influence.scores(test_tasks, self.train_tasks).values
        return Scored(values, super().scores(test_tasks).certificate)


class Remembers(Ours):
    """Derivatives, or fits, of a module are those of the first time it was seen."""

    def __init__(self, *calls):
        super().__init__("remembers", True)
        object.__setattr__(self, "calls", calls)
        object.__setattr__(self, "seen", {})

    def linearize(self, learner, tasks, dtype=None):
        return self._once(
            "linearize", learner, lambda first: super(Remembers, self).linearize(first, tasks, dtype)
        )

    def influence(self, learner, train_tasks, **named):
        return self._once(
            "influence", learner, lambda first: super(Remembers, self).influence(first, train_tasks, **named)
        )

    def _once(self, call, learner, compute):
        if call not in self.calls:
            return compute(learner)
        if (call, id(learner.module)) not in self.seen:
            # the module is kept too, so that no other gets its id
            self.seen[call, id(learner.module)] = learner.module, compute(copy.deepcopy(learner))
        return self.seen[call, id(learner.module)][1]


class BatchStatistics(Ours):
    """Normalises by the batch's statistics, whatever the learner says."""

    def linearize(self, learner, tasks, dtype=None):
        return super().linearize(learner.with_body(Body(learner.module)), tasks, dtype)


CASES = {
    "the module is trained": ("leaves_the_module_alone", "MAML, ReLU", Meddler("broken", True)),
    "the recorded decay is ignored": (
        "decay",
        "MAML, ReLU",
        WithoutDecay("broken", True, ("gauss_newton", "hessian")),
    ),
    "the recorded decay is ignored by the Hessian": (
        "decay",
        "MAML, ReLU",
        WithoutDecay("broken", True, ("hessian",)),
    ),
    "no decay by the Hessian": ("solve", "MAML, ReLU", WithoutDecay("broken", True, ("hessian",), False)),
    "training's steps on test tasks": (
        "scores",
        "MAML, another number of steps on a new task",
        TrainsOnTests("broken", True),
    ),
    "the curvature of the first shape": ("shapes", "MAML, ReLU", FirstShape("broken", True)),
    "derivatives are remembered": ("remembers_nothing", "MAML, ReLU", Remembers("linearize")),
    "fits are remembered": ("remembers_nothing", "MAML, ReLU", Remembers("influence")),
    "the batch's statistics": ("values", "MAML, Conv4, running statistics", BatchStatistics("broken", True)),
}
"""By name: the check that must catch it, on which case, and the backend."""
