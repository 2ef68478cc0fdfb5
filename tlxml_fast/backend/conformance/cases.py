"""Learners and tasks that a backend is checked on: small, so that dense matrices are the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ...learners import MAML, Learner, ProtoNet
from ...models import conv4, mlp
from ...task import Task, TaskSet
from .truth import Truth


@dataclass(frozen=True)
class Case:
    """A learner in float64 and its tasks.

    exact   whether torch's own third derivatives of the module are right, so that there is a dense Hessian; those of
            BatchNorm by the batch's statistics are not (torch 2.14)
    """

    name: str
    learner: Callable[[], Learner]
    tasks: TaskSet
    exact: bool = True

    @cached_property
    def truth(self) -> Truth:
        """Of the tasks, as training adapts."""
        return Truth(self.learner(), self.tasks)

    @cached_property
    def evaluation(self) -> Truth:
        """Of the tasks, as evaluation adapts."""
        return self.evaluated(self.learner())

    @cached_property
    def moved(self) -> Truth:
        """Of the tasks, after the learner's module was moved."""
        learner = self.learner()
        move(learner.module, 1)
        return Truth(learner, self.tasks)

    @cached_property
    def ragged(self) -> Truth:
        """Of tasks of two shapes: the second has a single query."""
        first, second, *others = self.tasks
        fewer = second.replace(query_x=second.query_x[:1], query_y=second.query_y[:1])
        return Truth(self.learner(), TaskSet([first, fewer, *others]))

    def evaluated(self, learner: Learner) -> Truth:
        """Of the tasks, by another learner as evaluation adapts."""
        return Truth(learner.at_evaluation(), self.tasks)


def move(module: nn.Module, seed: int) -> None:
    """All parameters a little, in place, and the buffers, variances among them, by a tenth."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
        for b in module.buffers():
            if b.is_floating_point():
                b.mul_(1.1)


def _tasks(count: int, features: tuple[int, ...], ways: int, shots: int, queries: int, seed: int) -> TaskSet:
    g = torch.Generator().manual_seed(seed)

    def one(i: int) -> Task:
        centres = torch.randn(ways, *features, generator=g, dtype=torch.float64)
        y = torch.arange(ways)
        sets = []
        for each in (shots, queries):
            labels = y.repeat_interleave(each)
            noise = torch.randn(len(labels), *features, generator=g, dtype=torch.float64)
            sets += [centres[labels] + noise, labels]
        return Task(*sets, name=f"conformance-{i}")

    return TaskSet([one(i) for i in range(count)])


def _regression(count: int, seed: int) -> TaskSet:
    g = torch.Generator().manual_seed(seed)

    def one(i: int) -> Task:
        x = torch.randn(7, 3, generator=g, dtype=torch.float64)
        y = torch.sin(x @ torch.randn(3, 2, generator=g, dtype=torch.float64)).abs()
        return Task(x[:4], y[:4], x[4:], y[4:], name=f"regression-{i}")

    return TaskSet([one(i) for i in range(count)])


def _double(module: nn.Module) -> nn.Module:
    """In float64, all parameters moved a little from their initialisation, where many derivatives vanish."""
    module = module.double()
    move(module, 0)
    return module


def _seen(module: nn.Module) -> nn.Module:
    """After its BatchNorm saw batches."""
    module.train()
    with torch.no_grad():
        for task in IMAGES:
            module(task.support_x)
    return module.eval()


FLAT, IMAGES = _tasks(3, (4,), 3, 2, 2, 0), _tasks(2, (1, 16, 16), 2, 2, 1, 1)
CASES = (
    Case("MAML, ReLU", lambda: MAML(_double(mlp(4, 5, 3, seed=0)), 0.3), FLAT),
    Case(
        "MAML, tanh, three steps",
        lambda: MAML(_double(mlp(4, (5, 4), 3, seed=1, activation="tanh")), 0.2, inner_steps=3),
        FLAT,
    ),
    Case(
        "MAML, another number of steps on a new task",
        lambda: MAML(_double(mlp(4, 4, 3, seed=10, activation="tanh")), 0.3, 1, inner_steps_eval=2),
        FLAT,
    ),
    Case("ANIL", lambda: MAML(_double(mlp(4, 5, 3, seed=2, activation="gelu")), 0.3, adapt="head"), FLAT),
    Case(
        "MAML, rates of each parameter",
        lambda: MAML(
            _double(mlp(4, 3, 3, seed=3, activation="tanh")),
            {"linear1.weight": 0.1, "linear1.bias": 0.5, "classifier.weight": 0.3, "classifier.bias": 0.0},
            inner_steps=2,
        ),
        FLAT,
    ),
    Case("MAML, regression", lambda: MAML(_double(mlp(3, 4, 2, seed=4)), 0.2, loss="mse"), _regression(3, 2)),
    Case(
        "MAML, yes or no",
        lambda: MAML(_double(mlp(3, 4, 2, seed=4, activation="tanh")), 0.2, loss="binary_cross_entropy"),
        _regression(3, 2),
    ),
    Case(
        "MAML, more outputs than ways",
        lambda: MAML(_double(mlp(4, 3, 5, seed=5, activation="tanh")), 0.3),
        FLAT,
    ),
    Case("ProtoNet", lambda: ProtoNet(_double(mlp(4, 5, 4, seed=6, activation="tanh")), scale=0.5), FLAT),
    Case("ProtoNet, cosine", lambda: ProtoNet(_double(mlp(4, 5, 4, seed=7)), "cosine", scale=3.0), FLAT),
    Case("ProtoNet, Conv4", lambda: ProtoNet(_double(conv4(2, 1, 16, seed=8))), IMAGES, exact=False),
    Case("MAML, Conv4", lambda: MAML(_double(conv4(2, 1, 16, 2, seed=9)), 0.1), IMAGES, exact=False),
    Case(
        "ProtoNet, Conv4, running statistics",
        lambda: ProtoNet(_seen(_double(conv4(2, 1, 16, seed=11))), norm="running"),
        IMAGES,
    ),
    Case(
        "MAML, Conv4, running statistics",
        lambda: MAML(_seen(_double(conv4(2, 1, 16, 2, seed=12))), 0.1, norm="running"),
        IMAGES,
    ),
)
