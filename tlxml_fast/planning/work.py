"""The arithmetic of a task: flops of its linear maps, whatever computes them.

A layer that maps x to Wx takes m multiply-adds an example, two flops each. With M the sum over the layers and M' the
sum without the first, whose input is data and has neither tangent nor cotangent, an example takes

    forward        2M            Wx
    gradient       2(2M + M')    and gᵀx in every layer, gW but in the first
    jvp, vjp       2(M + M')     dW x and W dx; gᵀx and gW
    hvp            2(2M + 4M')   those of the jvp; then the tangents dgᵀx + gᵀdx and dg W + g dW of the gradient

so that a ProtoNet's Gauss-Newton product is four convolutions a layer and vector, two in the first. Norms, activations,
pools, softmax and distances are not counted. An engine may do more than this, or less, as by Winograd's algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..learners import MAML, Learner
from ..task import Task


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
        module(x.to(next(module.parameters())))
    for hook in hooks:
        hook.remove()
    return found


@dataclass(frozen=True)
class TaskWork:
    """One task of a learner with q meta-parameters.

    passes   flops an example
    steps    inner steps over `support` examples; 0 for a ProtoNet, whose prototypes are derived with the queries
    query    examples that the outer loss is derived through
    outputs  n(C−1), the rank of the task's Gauss-Newton matrix
    numbers  in the task's images
    counted  how flops were counted
    """

    q: int
    passes: Passes
    steps: int
    support: int
    query: int
    outputs: int
    numbers: int
    counted: str

    @classmethod
    def of(cls, learner: Learner, task: Task) -> TaskWork:
        """By the layers of the learner's module."""
        q = sum(p.numel() for p in learner.parameters().values())
        passes = Passes.of(multiply_adds(learner.body.template, task.support_x[:2]))
        support, query, steps = len(task.support_x), len(task.query_x), 0
        if isinstance(learner, MAML):
            steps = learner.inner_steps
        else:
            support, query = 0, support + query
        outputs = len(task.query_x) * (task.ways - 1)
        numbers = task.support_x.numel() + task.query_x.numel()
        return cls(q, passes, steps, support, query, outputs, numbers, "layer by layer")

    @classmethod
    def bare(cls, q: int, ways: int, shots: int, queries: int, numbers: int) -> TaskWork:
        """Of a ProtoNet of which nothing is known but q: every parameter is used once an example, 2q flops forwards."""
        support, query = ways * shots, ways * queries
        counted = "2·parameters flops an example: a convolution takes many times as much"
        outputs = query * (ways - 1)
        return cls(q, Passes.of([0, q]), 0, 0, support + query, outputs, numbers * (support + query), counted)

    def scaled(self, q: int) -> TaskWork:
        """The same kind of network with q parameters, each used as often."""
        share = q / self.q
        p = self.passes
        passes = Passes(*(share * flops for flops in (p.forward, p.gradient, p.jvp, p.hvp)))
        return replace(
            self, q=q, passes=passes, counted=f"{self.counted}, times {share:.3g} for the parameters"
        )

    @property
    def primal(self) -> float:
        """Flops of adaptation and prediction."""
        return self.steps * self.support * self.passes.gradient + self.query * self.passes.forward

    @property
    def vector(self) -> float:
        """Flops of one vector one way, through the adaptation: a vjp takes what a jvp does."""
        return self.query * self.passes.jvp + self.steps * self.support * self.passes.hvp

    @property
    def second(self) -> float:
        """Flops of a vector's product with the exact Hessian: four Hessian-vector products a step, one at its end."""
        return (self.query + 4 * self.steps * self.support) * self.passes.hvp
