"""What is true of a learner's tasks: float64, by torch.func, of the learner's own pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.func import hessian, jacrev

from ...learners import Episode, Learner
from ...linearize import FlatParameters
from ...task import Task, TaskSet

STEP = 1e-6
"""Of central differences: their error is about 1e-9 of the value, of truncation as of rounding."""


class Truth:
    """Logits, losses, Jacobians and Hessians of every task, dense, by reverse mode alone.

    Of the parameters and buffers as they were when it was made; logits and J are of tasks of one shape.
    """

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
        return torch.stack(self._jacobians)

    @cached_property
    def gradients(self) -> Tensor:
        """[T, q]."""
        return self._gradients_at(self.omega)

    @cached_property
    def gauss_newton(self) -> Tensor:
        """J_tᵀΛ_tJ_t, [T, q, q], Λ_t the Hessian of the loss in the logits."""
        found = []
        for task, J in zip(self.tasks, self._jacobians, strict=True):
            f = self.logits_of(task)(self.omega)
            of_logits = hessian(lambda logits, y=task.query_y: self.learner.loss(logits, y))(f)
            J = J.flatten(0, 1)
            found.append(J.T @ of_logits.reshape(len(J), len(J)) @ J)
        return torch.stack(found)

    @cached_property
    def hessian(self) -> Tensor:
        """∇²L_t, [T, q, q], reverse over reverse."""
        return torch.stack([jacrev(jacrev(self.loss_of(task)))(self.omega) for task in self.tasks])

    def differences(self, V: Tensor) -> Tensor:
        """∇²L_t v_k by central differences of the gradients, [T, K, q]: right where third derivatives are not."""
        found = []
        for v in V:
            step = STEP / v.norm() * v
            change = self._gradients_at(self.omega + step) - self._gradients_at(self.omega - step)
            found.append(change * v.norm() / (2 * STEP))
        return torch.stack(found, 1)

    @cached_property
    def _jacobians(self) -> list[Tensor]:
        return [jacrev(self.logits_of(task))(self.omega) for task in self.tasks]

    def _gradients_at(self, omega: Tensor) -> Tensor:
        return torch.stack([jacrev(self.loss_of(task))(omega) for task in self.tasks])
