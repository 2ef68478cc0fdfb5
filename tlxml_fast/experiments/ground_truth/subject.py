"""What is retrained, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...learners import MAML, Learner, ProtoNet
from ...models import mlp
from ...task import TaskSet
from ..base import Setup
from ..subjects import HIDDEN, QUERIES, SHOTS, WAYS, WORDS

WEIGHT_DECAY = 1e-2
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Removals:
    """So many groups of k tasks to be removed; of how many also from the initialisation, and by Bregman response."""

    k: int
    groups: int
    scratch: int
    bregman: int


@dataclass(frozen=True)
class Size:
    """Training tasks, test tasks, hidden units, directions of Lanczos, removals; the last of these leave half-sets."""

    train: int
    test: int
    hidden: int
    rank: int
    removals: tuple[Removals, ...]


FULL = Size(
    train=128,
    test=32,
    hidden=HIDDEN,
    rank=128,
    removals=(
        Removals(1, 128, 32, 128),
        Removals(4, 32, 16, 32),
        Removals(16, 32, 16, 32),
        Removals(64, 50, 50, 16),
    ),
)
QUICK = Size(
    train=24,
    test=8,
    hidden=8,
    rank=16,
    removals=(Removals(1, 24, 6, 24), Removals(4, 6, 3, 6), Removals(12, 8, 8, 4)),
)


def size_of(setup: Setup) -> Size:
    """Full or quick."""
    return QUICK if setup.quick else FULL


def tasks_of(setup: Setup, seed: int, train: int, test: int) -> tuple[TaskSet, TaskSet]:
    """Tasks of visual words to train on, and others of other classes."""
    pools = setup.features(seed)
    drawn = zip(pools, (train, test), (2 * seed, 2 * seed + 1), strict=True)
    return tuple(TaskSet(pool.sample(n, WAYS, SHOTS, QUERIES, seed=s)) for pool, n, s in drawn)


def maml(size: Size, seed: int) -> Learner:
    """The paper's network in float64, with tanh: through ReLU an inner gradient jumps, and L with it."""
    return MAML(mlp(WORDS, size.hidden, WAYS, seed=seed, activation="tanh").double(), inner_lr=0.5)


def protonet(size: Size, seed: int) -> Learner:
    """A ProtoNet with an encoder of the same width."""
    encoder = mlp(WORDS, size.hidden, size.hidden, seed=seed, activation="tanh").double()
    return ProtoNet(encoder, scale=1 / size.hidden)


LEARNERS = {"MAML": maml, "ProtoNet": protonet}
