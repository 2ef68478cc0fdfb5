"""The learners on which approximations are compared, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...learners import ProtoNet
from ...models import conv4
from ...task import TaskSet
from ..base import Setup
from ..subjects import MAML_MLP, PROTONET_CONV4, SHOTS, SMALLEST_IMAGE, WAYS, Subject
from .compared import EXACT, LARGE, QUICK
from .methods import Method

# The ProtoNets have few tasks to learn: they are stopped from becoming certain of all queries, where Λ vanishes.
MILD, STRONG = {"weight_decay": 1e-3}, {"weight_decay": 1e-2, "lr": 3e-3}

PROTONET_CONV4_64 = Subject(
    "ProtoNet, Conv4-64",
    True,
    lambda width, seed: ProtoNet(conv4(width, seed=seed), scale=1 / width),
    64,
    {"batch_size": 4, "steps": 100},
)


@dataclass(frozen=True)
class Case:
    """A learner, how it is trained, how many tasks, and what is compared, the whole Gauss-Newton matrix first."""

    subject: Subject
    training: Mapping[str, float]
    train: int
    test: int
    methods: Sequence[Method]
    queries: int = 5

    def tasks(self, setup: Setup, seed: int) -> tuple[TaskSet, TaskSet]:
        """Those that the learner is trained on and fitted to, and others of other classes."""
        shape = {"ways": WAYS, "shots": SHOTS, "queries": self.queries, "seed": seed}
        if setup.quick:
            shape |= {"shots": 1, "queries": 2}
        pools = self.subject.pools(setup, seed)
        counts = (self.train, self.test)
        return tuple(TaskSet(pool.sample(n, **shape)) for pool, n in zip(pools, counts, strict=True))


CASES = (
    Case(MAML_MLP, MILD, 256, 32, EXACT),
    Case(PROTONET_CONV4, STRONG, 64, 16, EXACT),
    Case(PROTONET_CONV4_64, STRONG, 32, 16, LARGE, queries=3),
)
QUICK_CASES = (
    Case(MAML_MLP, MILD, 32, 8, QUICK),
    Case(PROTONET_CONV4, STRONG, 16, 8, QUICK),
)


def cases(setup: Setup) -> tuple[Case, ...]:
    """Those that the images are large enough for."""
    large = setup.pool("train").image_size >= SMALLEST_IMAGE
    return tuple(case for case in (QUICK_CASES if setup.quick else CASES) if large or not case.subject.images)
