"""What is explained of the test tasks: gradients of their losses, or of another target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .distributed import World
from .errors import TaskError
from .learners import Learner
from .linearize import Linearization
from .linearize.buckets import Buckets
from .progress import progress_bar
from .scores import TaskAxis
from .targets import AdaptedParameter, target_cotangents
from .task import TaskSet


@dataclass(frozen=True)
class Explained:
    """∇_ω of the target of every test task, or of every query of theirs.

    rows    [K, q], task by task
    counts  how many rows each task has: one, or its queries
    """

    axis: TaskAxis
    rows: Tensor
    counts: tuple[int, ...]
    per_query: bool

    @classmethod
    def of(
        cls,
        learner: Learner,
        tasks: TaskSet,
        linearize: Callable[[Learner, TaskSet], Linearization],
        target: str,
        per_query: bool,
        progress: bool,
    ) -> Explained:
        """From tasks; TaskError where a gradient is not finite, or labels are missing that the target needs."""
        buckets = Buckets(learner, tasks, linearize)
        if target == "loss":
            for lin in buckets.linearizations:
                lin.need_targets()
        adapted = AdaptedParameter.of(target)
        cotangents = (
            {} if adapted else {id(lin): target_cotangents(lin, target) for lin in buckets.linearizations}
        )

        def rows(lin: Linearization, block: slice) -> Tensor:
            if adapted:
                return lin.adapted_gradients(block, *adapted)[:, None]
            u = cotangents[id(lin)][block]
            if per_query:
                return lin.per_query_vjp(block, u[:, :, None])[:, :, 0]
            return lin.vjp_block(block, u[:, None] / lin.n)

        with progress_bar("test gradients", len(buckets), progress) as advance:
            gradients = buckets.gather(rows, advance)
        for task, gradient in zip(buckets.tasks, gradients, strict=True):
            if not torch.isfinite(gradient).all():
                raise TaskError(f"the gradient of test task {task.label!r} is not finite")
        return cls(TaskAxis.of(buckets.tasks), torch.cat(gradients), tuple(map(len, gradients)), per_query)

    def joined(self, world: World) -> Explained:
        """Those of all processes."""
        if world.size == 1:
            return self
        each = world.items([*zip(self.axis.names, self.axis.ids, self.axis.groups, self.counts, strict=True)])
        *axis, counts = zip(*each, strict=True)
        return replace(self, axis=TaskAxis(*axis), rows=world.cat(self.rows), counts=counts)

    def per_task(self, values: Tensor) -> Tensor:
        """From [K, m] to [n_test, m], or per query to [n_test, n, m], NaN beyond a task's own queries."""
        if not self.per_query:
            return values
        return torch.nn.utils.rnn.pad_sequence(
            values.split(self.counts), batch_first=True, padding_value=float("nan")
        )
