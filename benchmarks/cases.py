"""The table of comparisons: what is computed, against whom, and what ratio is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..learners import MAML, Learner, ProtoNet
from ..linearize import Linearization, linearize
from ..models import conv4, mlp
from ..ops._dispatch import backend_of
from ..task import TaskSet
from . import baselines
from .arithmetic import Counter, Work, rates
from .baselines import Plain
from .measure import OURS, Goal, Row, Settings, Timing, contest, validate, vectors
from .tasks import random_tasks

VALIDATED = 2  # tasks that all contestants are compared on in float64


@dataclass(frozen=True)
class Case:
    """One row: a learner on random tasks, K vectors (0: gradients of all tasks).

    of_sgemm  the share of the rate of a matrix product that is asked of the vectors' part of the work: least, aim
    graphs    whether ours, on a device, replays a CUDA graph
    """

    name: str
    learner: Callable[[], Learner]
    tasks: Callable[[int], TaskSet]
    K: int
    against: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    of_sgemm: tuple[float, float] | None = None
    graphs: bool = False

    in_processes = True

    def run(self, settings: Settings) -> Row:
        """Validated, timed, and set beside the rate of a matrix product."""
        tasks = self.tasks(settings.seed)
        timings, missing = self.timed(tasks, settings)
        ours, work, reached = timings[OURS].median, self.arithmetic(tasks), settings.reached_now()
        goals = [judged for goal in self.goals for judged in goal.judged(timings)]
        if self.of_sgemm:
            (least, aim), ratio = self.of_sgemm, work.vectors / ours / reached.flops
            against = f"sgemm at {reached.flops / 1e9:.0f} GFLOP/s"
            goals.append({"against": against, "ratio": ratio, "least": least, "aim": aim})
        return {
            "tasks": len(tasks),
            "vectors": self.K,
            "timings": {name: asdict(t) for name, t in timings.items()},
            "missing": missing,
            "goals": goals,
            "arithmetic": rates(work, ours, reached),
        }

    def timed(self, tasks: TaskSet, settings: Settings) -> tuple[dict[str, Timing], dict[str, str]]:
        """All contestants, compared on a few tasks and timed on all; and why one is missing."""
        few = TaskSet(list(tasks)[:VALIDATED])
        errors = validate(self.contestants(few, torch.float64, settings.device)[0], self.truth(few))
        runs, missing = self.contestants(tasks, device=settings.device)
        return contest(runs, errors, settings.rounds, settings.seconds), missing

    def alone(self, name: str) -> Callable[[], Tensor]:
        """One of the contestants, ready to run."""
        return self.contestants(self.tasks(0))[0][name]

    def tiny(self) -> Case:
        """The same on hardly any work: what is loaded and chosen on first use is then there."""
        learner, shape = tiny(self.learner())
        return replace(self, learner=lambda: learner, tasks=lambda seed: random_tasks(1, shape, 1, seed=seed))

    def arithmetic(self, tasks: TaskSet) -> Work:
        """What the work takes."""
        counter = Counter(self.learner(), tasks)
        return counter.product(self.K) if self.K else counter.gradients()

    def contestants(
        self, tasks: TaskSet, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> tuple[dict[str, Callable[[], Tensor]], dict[str, str]]:
        """Functions to run by name, ours first; and why one is missing."""
        learner = self.learner()
        learner.module.to(device, dtype)
        learner.body.template.to(device, dtype)
        plain = Plain(learner, tasks, dtype)
        V = vectors(self.K, plain.omega)
        lin = linearize(learner, tasks, backend_of(torch.device(device)), strict=True, graphs=self.graphs)
        runs = {OURS: self.work(lin, V)}
        missing: dict[str, str] = {}
        for name in self.against:
            try:
                runs[name] = BASELINES[name](plain, V)
            except ImportError as error:
                missing[name] = not_run(error)
        return runs, missing

    def work(self, lin: Linearization, V: Tensor) -> Callable[[], Tensor]:
        """What is asked of a linearization."""
        return (lambda: lin.gnvp(V)) if self.K else lin.gradients

    def truth(self, tasks: TaskSet) -> Tensor:
        """The reference's answer in float64."""
        lin = linearize(self.learner(), tasks, "reference", torch.float64)
        return self.work(lin, vectors(self.K, lin.omega))()


def not_run(error: ImportError) -> str:
    """Why, and what to do."""
    return f"not run: {error} (pip install 'tlxml_fast[bench]')"


def tiny(like: Learner) -> tuple[Learner, tuple[int, ...]]:
    """A learner of the same kind on hardly anything, and its examples' shape.

    Of convolutions only where there are some: torch.func cannot vmap their second derivatives over tasks and vectors.
    """
    images = any(isinstance(m, nn.Conv2d) for m in like.module.modules())
    ways = 5 if isinstance(like, MAML) else None
    module = conv4(2, image_size=16, ways=ways, seed=0) if images else mlp(4, 3, 5, seed=0)
    return MAML(module, 0.1, 1) if ways else ProtoNet(module), (1, 16, 16) if images else (4,)


def _product(make: Callable[[Plain], baselines.Product]) -> Callable[[Plain, Tensor], Callable[[], Tensor]]:
    def ready(plain: Plain, V: Tensor) -> Callable[[], Tensor]:
        product = make(plain)
        return lambda: product(V)

    return ready


BASELINES: dict[str, Callable[[Plain, Tensor], Callable[[], Tensor]]] = {
    "curvlinops": lambda p, V: partial(baselines.curvlinops(p, len(V)), V),
    "torch.func, vmap over tasks and vectors": _product(lambda p: baselines.torch_func(p, True, True)),
    "torch.func, vmap over tasks": _product(lambda p: baselines.torch_func(p, True, False)),
    "torch.func, vmap over vectors": _product(lambda p: baselines.torch_func(p, False, True)),
    "torch.func, per vector": _product(lambda p: baselines.torch_func(p, False, False)),
    "autograd loop": _product(baselines.autograd_loop),
    "vmap(grad), 16 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 16),
    "vmap(grad), 64 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 64),
    "vmap(grad), 256 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 256),
    "vmap(grad), 4,096 tasks at once": lambda p, V: baselines.vmapped_gradients(p, 4096),
}
GENERAL = ("curvlinops", "torch.func, vmap over tasks and vectors", "torch.func, vmap over tasks")
PER_VECTOR, VMAPPED = "torch.func, per vector", "torch.func, vmap over vectors"
GRADIENTS = tuple(f"vmap(grad), {count} tasks at once" for count in (16, 64, 256))


def mlp_learner(steps: int, hidden: int = 32) -> Callable[[], Learner]:
    """MAML on the TLXML paper's network, or a wider one."""
    return lambda: MAML(mlp(34, hidden, 5, seed=0), 0.1, steps)


def _conv(steps: int) -> Callable[[], Learner]:
    return lambda: MAML(conv4(32, ways=5, seed=0), 0.1, steps)


def vector_tasks(count: int, seed: int) -> TaskSet:
    """For it."""
    return random_tasks(count, (34,), 5, seed=seed)


def _vectors(count: int) -> Callable[[int], TaskSet]:
    return lambda seed: vector_tasks(count, seed)


def images(count: int, shots: int, side: int = 28) -> Callable[[int], TaskSet]:
    """Grey ones, for the others."""
    return lambda seed: random_tasks(count, (1, side, side), shots, seed=seed)


CASES = (
    Case("GN product, MAML MLP 34-32-5, 5 steps, 64 tasks, K=32", mlp_learner(5), _vectors(64), 32, GENERAL,
         (Goal(GENERAL, 6, 12),)),
    Case("GN product, MAML MLP 34-32-5, 5 steps, 64 tasks, K=1", mlp_learner(5), _vectors(64), 1,
         (*GENERAL, "autograd loop"), (Goal(GENERAL, 15, 30), Goal(("autograd loop",), 200, 400))),
    Case("GN product, MAML MLP 34-32-5, 1 step, 64 tasks, K=32", mlp_learner(1), _vectors(64), 32, GENERAL),
    Case("GN product, MAML MLP 34-32-5, 1 step, 64 tasks, K=1", mlp_learner(1), _vectors(64), 1, GENERAL),
    Case("GN product, ProtoNet Conv4-64 28×28, 5-way 5-shot, 1 task, K=8", lambda: ProtoNet(conv4(64, seed=0)),
         images(1, 5), 8, (VMAPPED, PER_VECTOR), (Goal((VMAPPED,), 5, 8), Goal((PER_VECTOR,), 2.5, 4)),
         (0.45, 0.7)),
    Case("GN product, MAML Conv4-32 28×28, 5-way 1-shot, 1 step, 4 tasks, K=8", _conv(1), images(4, 1), 8,
         (PER_VECTOR,), (Goal((PER_VECTOR,), 4, 8),)),
    Case("GN product, MAML Conv4-32 28×28, 5-way 1-shot, 5 steps, 4 tasks, K=8", _conv(5), images(4, 1), 8,
         (PER_VECTOR,), (Goal((PER_VECTOR,), 4, 8),)),
    Case("gradients, MAML MLP 34-32-5, 5 steps, 1,024 tasks", mlp_learner(5), _vectors(1024), 0, GRADIENTS,
         (Goal(GRADIENTS, 3, 5),)),
    Case("gradients, ProtoNet Conv4-16 16×16, 1,024 tasks", lambda: ProtoNet(conv4(16, image_size=16, seed=0)),
         images(1024, 5, 16), 0, GRADIENTS[:1], (Goal(GRADIENTS[:1], 3, 5),)),
)  # fmt: skip
