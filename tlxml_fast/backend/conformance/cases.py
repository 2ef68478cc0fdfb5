"""Learners and tasks that a backend is checked on: small, so that dense matrices are the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev

from ...learners import MAML, Episode, Learner, ProtoNet
from ...linearize import FlatParameters
from ...models import conv4, mlp
from ...task import Task, TaskSet


@dataclass(frozen=True)
class Case:
    """A learner in float64 and its tasks.

    exact   whether torch's own third derivatives of the module are right, so that there is a true Hessian
    """

    name: str
    learner: Callable[[], Learner]
    tasks: TaskSet
    exact: bool = True

    @cached_property
    def truth(self) -> Truth:
        """Dense, by torch.func, of the learner's own pure functions."""
        return Truth(self.learner(), self.tasks)


class Truth:
    """Logits, losses, Jacobians and Hessians of every task in float64, by reverse mode alone."""

    def __init__(self, learner: Learner, tasks: TaskSet):
        self.learner, self.tasks = learner, tasks
        parameters = {name: p.detach() for name, p in learner.parameters().items()}
        self.flat = FlatParameters(parameters)
        self.omega = self.flat.flatten(parameters)

    def logits_of(self, task: Task) -> Callable[[Tensor], Tensor]:
        """ω → f, [n, C]."""
        episode = Episode.of(task, torch.float64, self.omega.device)
        return lambda omega: self.learner.query_logits(self.flat.unflatten(omega), episode, task.ways)

    def loss_of(self, task: Task) -> Callable[[Tensor], Tensor]:
        """ω → L."""
        logits = self.logits_of(task)
        return lambda omega: self.learner.loss(logits(omega), task.query_y)

    @cached_property
    def logits(self) -> Tensor:
        """[T, n, C]."""
        return torch.stack([self.logits_of(task)(self.omega) for task in self.tasks])

    @cached_property
    def losses(self) -> Tensor:
        """[T]."""
        return torch.stack([self.loss_of(task)(self.omega) for task in self.tasks])

    @cached_property
    def J(self) -> Tensor:
        """[T, n, C, q]."""
        return torch.stack([jacrev(self.logits_of(task))(self.omega) for task in self.tasks])

    @cached_property
    def gradients(self) -> Tensor:
        """[T, q]."""
        return torch.stack([jacrev(self.loss_of(task))(self.omega) for task in self.tasks])

    @cached_property
    def gauss_newton(self) -> Tensor:
        """J_tᵀΛ_tJ_t, [T, q, q], Λ_t the Hessian of the loss in the logits."""
        found = []
        for task, f, J in zip(self.tasks, self.logits, self.J, strict=True):
            of_logits = hessian(lambda logits, y=task.query_y: self.learner.loss(logits, y))(f)
            J = J.flatten(0, 1)
            found.append(J.T @ of_logits.reshape(len(J), len(J)) @ J)
        return torch.stack(found)

    @cached_property
    def hessian(self) -> Tensor:
        """∇²L_t, [T, q, q], reverse over reverse."""
        return torch.stack([jacrev(jacrev(self.loss_of(task)))(self.omega) for task in self.tasks])


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
    g = torch.Generator().manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return module


FLAT, IMAGES = _tasks(3, (4,), 3, 2, 2, 0), _tasks(2, (1, 16, 16), 2, 2, 1, 1)
CASES = (
    Case("MAML, ReLU", lambda: MAML(_double(mlp(4, 5, 3, seed=0)), 0.3), FLAT),
    Case(
        "MAML, tanh, three steps",
        lambda: MAML(_double(mlp(4, (5, 4), 3, seed=1, activation="tanh")), 0.2, inner_steps=3),
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
)
