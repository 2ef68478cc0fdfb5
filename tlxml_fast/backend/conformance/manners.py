"""Checks of what a backend leaves behind, remembers and accepts: each raises Failure with the reason."""

from __future__ import annotations

import torch

from ...learners import MAML
from ...task import TaskSet
from ..protocol import Backend
from .cases import Case, move
from .comparing import Failure, equal, refused
from .derivatives import linearized, vectors
from .influences import DAMPING, checked, influence_of, inverted


def leaves_the_module_alone(backend: Backend, case: Case) -> None:
    """Parameters and buffers are what they were, and nothing asks for gradients that did not."""
    learner = case.learner()
    before = {name: t.clone() for name, t in learner.module.state_dict().items()}
    lin = backend.linearize(learner, case.tasks)
    lin.gradients(), lin.gnvp(vectors(case, 1))
    checked(backend.influence(learner, case.tasks, damping=DAMPING)).scores(case.tasks[:1])
    for name, t in learner.module.state_dict().items():
        if not torch.equal(t, before[name]):
            raise Failure(f"the module's {name} has changed")
    if any(p.grad is not None for p in learner.module.parameters()):
        raise Failure("a parameter of the module has a gradient")


def remembers_nothing(backend: Backend, case: Case) -> None:
    """Between two calls the module's parameters and buffers change in place: the second is of what they are then."""
    learner = case.learner()
    backend.linearize(learner, case.tasks).gradients()
    checked(backend.influence(learner, case.tasks, damping=DAMPING)).scores(case.tasks[:1])
    move(learner.module, 1)
    truth = case.moved
    lin = backend.linearize(learner, case.tasks)
    equal("logits after a change of the module", lin.logits, truth.logits)
    equal("gradients after a change of the module", lin.gradients(), truth.gradients)
    A, damping = inverted("gauss_newton", truth)
    fitted = backend.influence(learner, case.tasks, damping=damping, weight_decay=0.0)
    tests = case.evaluated(learner).gradients[:1]
    equal(
        "scores after a change of the module",
        fitted.scores(case.tasks[:1]).values,
        influence_of(A, tests, truth.gradients),
    )


def refuses(backend: Backend, case: Case) -> None:
    """What makes no sense is an exception."""
    learner, tasks, q = case.learner(), case.tasks, case.truth.omega.numel()
    lin = linearized(backend, case)
    refused("vectors of another length", lambda: lin.gnvp(torch.zeros(1, q + 1, dtype=torch.float64)))
    refused("one vector that is no row", lambda: lin.jvp(torch.zeros(q, dtype=torch.float64)))
    refused("no tasks", lambda: backend.linearize(learner, TaskSet([])))
    refused("tasks of two shapes", lambda: backend.linearize(learner, case.ragged.tasks).logits)
    unlabelled = TaskSet([tasks[0].replace(query_y=None)])
    refused(
        "the loss of a task without query labels", lambda: backend.linearize(learner, unlabelled).losses()
    )
    refused("a curvature that there is not", lambda: backend.influence(learner, tasks, curvature="nonsense"))
    if isinstance(learner, MAML):
        first_order = MAML(learner.module, 0.1, first_order=True, norm=learner.norm, loss=learner.loss.name)
        refused("first-order MAML", lambda: backend.influence(first_order, tasks))
