"""The table of comparisons: what is computed, against whom, and what ratio is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..learners import MAML, Learner, ProtoNet
from ..linearize import Linearization, linearize
from ..models import conv4, mlp
from ..task import TaskSet
from . import baselines
from .baselines import Plain
from .measure import vectors
from .tasks import random_tasks


@dataclass(frozen=True)
class Goal:
    """A ratio: baseline's time over ours, the faster of several baselines."""

    baselines: tuple[str, ...]
    least: float
    aim: float


@dataclass(frozen=True)
class Case:
    """One row: a learner on random tasks, K vectors (0: gradients of all tasks)."""

    name: str
    learner: Callable[[], Learner]
    tasks: Callable[[int], TaskSet]
    K: int
    against: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    convolution_flops: float = 0
    """Of four convolutions a vector and task, where the share of the sgemm rate is asked for."""

    def contestants(
        self, tasks: TaskSet, dtype: torch.dtype = torch.float32
    ) -> tuple[dict[str, Callable[[], Tensor]], dict[str, str]]:
        """Functions to run by name, ours first; and why one is missing."""
        learner = self.learner()
        learner.module.to(dtype)
        learner.body.template.to(dtype)
        plain = Plain(learner, tasks, dtype)
        V = vectors(self.K, plain.omega)
        runs, missing = {"tlxml_fast": self.work(linearize(learner, tasks, "native", strict=True), V)}, {}
        for name in self.against:
            try:
                runs[name] = BASELINES[name](plain, V)
            except ImportError as error:
                missing[name] = f"not run: {error} (pip install 'tlxml_fast[bench]')"
        return runs, missing

    def work(self, lin: Linearization, V: Tensor) -> Callable[[], Tensor]:
        """What is asked of a linearization."""
        return (lambda: lin.gnvp(V)) if self.K else lin.gradients

    def truth(self, tasks: TaskSet) -> Tensor:
        """The reference's answer in float64."""
        lin = linearize(self.learner(), tasks, "reference", torch.float64)
        return self.work(lin, vectors(self.K, lin.omega))()


def _product(make: Callable[[Plain], baselines.Product]) -> Callable[[Plain, Tensor], Callable[[], Tensor]]:
    def ready(plain: Plain, V: Tensor) -> Callable[[], Tensor]:
        product = make(plain)
        return lambda: product(V)

    return ready


BASELINES: dict[str, Callable[[Plain, Tensor], Callable[[], Tensor]]] = {
    "curvlinops": _product(baselines.curvlinops),
    "torch.func, vmap over tasks and vectors": _product(lambda p: baselines.torch_func(p, True, True)),
    "torch.func, vmap over tasks": _product(lambda p: baselines.torch_func(p, True, False)),
    "torch.func, vmap over vectors": _product(lambda p: baselines.torch_func(p, False, True)),
    "torch.func, per vector": _product(lambda p: baselines.torch_func(p, False, False)),
    "autograd loop": _product(baselines.autograd_loop),
    "vmap(grad), 16 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 16),
    "vmap(grad), 64 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 64),
    "vmap(grad), 256 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 256),
}
GENERAL = ("curvlinops", "torch.func, vmap over tasks and vectors", "torch.func, vmap over tasks")
PER_VECTOR, VMAPPED = "torch.func, per vector", "torch.func, vmap over vectors"
GRADIENTS = tuple(name for name in BASELINES if name.startswith("vmap(grad)"))


def conv4_flops(hidden: int, images: int, side: int = 28) -> float:
    """Multiply-adds, twice, of four convolutions a block for each image (two in the first, whose input is fixed)."""
    total, channels = 0.0, 1
    for block in range(4):
        total += (2 if block == 0 else 4) * 2 * side * side * 9 * channels * hidden
        side, channels = side // 2, hidden
    return images * total


def _mlp(steps: int) -> Callable[[], Learner]:
    return lambda: MAML(mlp(34, 32, 5, seed=0), 0.1, steps)


def _conv(steps: int) -> Callable[[], Learner]:
    return lambda: MAML(conv4(32, ways=5, seed=0), 0.1, steps)


def _vectors(count: int, shots: int = 5) -> Callable[[int], TaskSet]:
    return lambda seed: random_tasks(count, (34,), shots, seed=seed)


def _images(count: int, shots: int, side: int = 28) -> Callable[[int], TaskSet]:
    return lambda seed: random_tasks(count, (1, side, side), shots, seed=seed)


CASES = (
    Case("GN product, MAML MLP 34-32-5, 5 steps, 64 tasks, K=32", _mlp(5), _vectors(64), 32, GENERAL,
         (Goal(GENERAL, 6, 12),)),
    Case("GN product, MAML MLP 34-32-5, 5 steps, 64 tasks, K=1", _mlp(5), _vectors(64), 1,
         (*GENERAL, "autograd loop"), (Goal(GENERAL, 15, 30), Goal(("autograd loop",), 200, 400))),
    Case("GN product, MAML MLP 34-32-5, 1 step, 64 tasks, K=32", _mlp(1), _vectors(64), 32, GENERAL),
    Case("GN product, MAML MLP 34-32-5, 1 step, 64 tasks, K=1", _mlp(1), _vectors(64), 1, GENERAL),
    Case("GN product, ProtoNet Conv4-64 28×28, 5-way 5-shot, 1 task, K=8", lambda: ProtoNet(conv4(64, seed=0)),
         _images(1, 5), 8, (VMAPPED, PER_VECTOR), (Goal((VMAPPED,), 5, 8), Goal((PER_VECTOR,), 2.5, 4)),
         conv4_flops(64, 100)),
    Case("GN product, MAML Conv4-32 28×28, 5-way 1-shot, 1 step, 4 tasks, K=8", _conv(1), _images(4, 1), 8,
         (PER_VECTOR,), (Goal((PER_VECTOR,), 4, 8),)),
    Case("GN product, MAML Conv4-32 28×28, 5-way 1-shot, 5 steps, 4 tasks, K=8", _conv(5), _images(4, 1), 8,
         (PER_VECTOR,), (Goal((PER_VECTOR,), 4, 8),)),
    Case("gradients, MAML MLP 34-32-5, 5 steps, 1,024 tasks", _mlp(5), _vectors(1024), 0, GRADIENTS,
         (Goal(GRADIENTS, 3, 5),)),
    Case("gradients, ProtoNet Conv4-16 16×16, 1,024 tasks", lambda: ProtoNet(conv4(16, image_size=16, seed=0)),
         _images(1024, 5, 16), 0, GRADIENTS[:1], (Goal(GRADIENTS[:1], 3, 5),)),
)  # fmt: skip
