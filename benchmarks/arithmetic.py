"""How much work a comparison is: flops of its linear maps, and bytes that must move whatever computes it.

A layer that maps x to Wx takes m multiply-adds an example, two flops each. With M the sum over the layers and M' the
sum without the first, whose input is data and has neither tangent nor cotangent, an example takes

    forward        2M            Wx
    gradient       2(2M + M')    and gᵀx in every layer, gW but in the first
    jvp, vjp       2(M + M')     dW x and W dx; gᵀx and gW
    hvp            2(2M + 4M')   those of the jvp; then the tangents dgᵀx + gᵀdx and dg W + g dW of the gradient

so that a ProtoNet's Gauss-Newton product is four convolutions a layer and vector, two in the first. Norms, activations,
pools, softmax and distances are not counted. A contestant may do more than this, or less, as by Winograd's algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..learners import MAML, Learner
from ..profiling import Peaks
from ..task import TaskSet
from .measure import Row


@dataclass(frozen=True)
class Work:
    """Flops, of them `vectors` for the vectors alone, without what they share; and compulsory bytes."""

    flops: float
    bytes: float
    vectors: float = 0.0


def rates(work: Work, seconds: float, reached: Peaks) -> Row:
    """The rates of `work` in so many seconds, and their shares of the machine's."""
    flops, bytes = work.flops / seconds, work.bytes / seconds
    return {
        "flops": work.flops,
        "bytes": work.bytes,
        "flops_per_second": flops,
        "bytes_per_second": bytes,
        "of_sgemm": flops / reached.flops,
        "of_copy": bytes / reached.bytes,
    }


@dataclass(frozen=True)
class Passes:
    """Flops an example of each pass over a network."""

    forward: float
    gradient: float
    jvp: float
    hvp: float

    @classmethod
    def of(cls, layers: list[int]) -> Passes:
        """From the multiply-adds an example of each layer, in order."""
        M, inner = sum(layers), sum(layers[1:])
        return cls(2 * M, 2 * (2 * M + inner), 2 * (M + inner), 2 * (2 * M + 4 * inner))


def multiply_adds(module: nn.Module, x: Tensor) -> list[int]:
    """Of each linear map of the module, in the order they are called in, for one of the examples x [n, ...]."""
    found: list[int] = []

    def count(layer: nn.Module, _: object, y: Tensor) -> None:
        found.append(y[0].numel() * layer.weight[0].numel())

    hooks = [
        m.register_forward_hook(count) for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return found


class Counter:
    """The work of a learner's quantities over tasks of one shape."""

    def __init__(self, learner: Learner, tasks: TaskSet):
        task = tasks[0]
        self.passes = Passes.of(multiply_adds(learner.body.template, task.support_x[:2].float()))
        self.T, self.q = len(tasks), sum(p.numel() for p in learner.parameters().values())
        self.outputs = len(task.query_x) * (task.ways - 1)
        self.read = 4 * self.T * (task.support_x.numel() + task.query_x.numel())
        if isinstance(learner, MAML):
            self.steps, self.support, self.query = learner.inner_steps, len(task.support_x), len(task.query_x)
        else:  # the prototypes are derived with the queries
            self.steps, self.support, self.query = 0, 0, len(task.support_x) + len(task.query_x)

    @property
    def primal(self) -> float:
        """Adaptation and prediction of a task."""
        return self.steps * self.support * self.passes.gradient + self.query * self.passes.forward

    @property
    def pull_back(self) -> float:
        """Of one cotangent of a task's logits, through the adaptation (a vjp takes what a jvp does)."""
        return self.query * self.passes.jvp + self.steps * self.support * self.passes.hvp

    def product(self, K: int) -> Work:
        """A Gauss-Newton product with K vectors: there and back again."""
        vectors = self.T * K * 2 * self.pull_back
        return Work(self.T * self.primal + vectors, self.read + 4 * (2 * K + 1) * self.q, vectors)

    def gradients(self) -> Work:
        """Gradients of all tasks."""
        flops = self.T * (self.primal + self.pull_back)
        return Work(flops, self.read + 4 * (self.T + 1) * self.q)

    def matrix(self) -> Work:
        """Dense G: by n(C−1) pull-backs a task and half their Gram matrix, or by q products, whichever is less."""
        by_rows = self.primal + self.outputs * (self.pull_back + self.q**2)
        by_products = self.primal + self.q * 2 * self.pull_back
        return Work(self.T * min(by_rows, by_products), self.read + 8 * self.q**2)


def scores(learner: Learner, train: TaskSet, test: TaskSet) -> Work:
    """Dense G, its eigendecomposition (9q³), gradients of both sets, the solves and the inner products."""
    seen, new = Counter(learner, train), Counter(learner, test)
    q = seen.q
    parts = (seen.matrix(), seen.gradients(), new.gradients())
    rest = 9 * q**3 + 4 * new.T * q**2 + 2 * new.T * seen.T * q
    return Work(sum(p.flops for p in parts) + rest, sum(p.bytes for p in parts) + 8 * new.T * seen.T)
