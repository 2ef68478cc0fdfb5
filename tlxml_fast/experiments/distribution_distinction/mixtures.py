"""Training sets that mix distributions of tasks, plain and augmented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...data import FeaturePool, ImagePool, noise, permute_classes, rotate
from ...errors import DataError
from ...task import Task, TaskSet
from ..base import Setup
from ..subjects import SHOTS, WAYS, Subject

REGULAR, NOISE = "regular", "noise"
QUERIES = 5
TURNS = 4  # an augmented family: a task and its three rotations


@dataclass(frozen=True)
class Mixture:
    """Training tasks of several groups, and test tasks.

    families   [M] which training tasks are one task augmented: the unit that is removed, and permuted, as a whole
    """

    train: TaskSet
    test: TaskSet
    families: list[int]


Prepare = Callable[[TaskSet], TaskSet]


def with_noise(subject: Subject, setup: Setup, seed: int, tasks: int, tests: int, augmented: bool) -> Mixture:
    """Half the training tasks are regular, the images of the other half are noise; the test tasks are regular."""
    pool, others = subject.pools(setup, seed)
    images, prepare = _parts(pool)
    half = tasks // 2 // (TURNS if augmented else 1)
    drawn = images.sample(2 * half, WAYS, SHOTS, QUERIES, seed=seed, within_groups=False)
    regular = drawn[:half].map(lambda task: task.replace(group=REGULAR))
    mixed = TaskSet(regular) + TaskSet(noise(drawn[half:], seed, group=NOISE))
    test = prepare(_parts(others)[0].sample(tests, WAYS, SHOTS, QUERIES, seed=seed + 1, within_groups=False))
    return _mixture(mixed, test.map(lambda task: task.replace(group=REGULAR)), prepare, augmented, seed)


def with_groups(
    subject: Subject, setup: Setup, seed: int, tasks: int, tests: int, augmented: bool
) -> Mixture:
    """Each task is of one script or alphabet; test tasks are of the same ones, of characters that training has not."""
    pool, others = subject.pools(setup, seed)
    images, prepare = _parts(pool)
    train, test = _split(images, _parts(others)[0])
    count = tasks // (TURNS if augmented else 1)
    mixed = TaskSet(train.sample(count, WAYS, SHOTS, QUERIES, seed=seed, within_groups=True))
    held_out = test.sample(tests, WAYS, SHOTS, QUERIES, seed=seed + 1, within_groups=True)
    return _mixture(mixed, prepare(held_out), prepare, augmented, seed)


def has_groups(setup: Setup) -> bool:
    """Whether the classes of the data belong to groups."""
    return len(set(setup.pool("train").groups)) > 1


MIXTURES = {"noise": with_noise, "groups": with_groups}


def _parts(pool: ImagePool | FeaturePool) -> tuple[ImagePool, Prepare]:
    """The images, and what makes of a task of images a task of the subject's inputs."""
    return (pool.images, pool.words) if isinstance(pool, FeaturePool) else (pool, lambda tasks: tasks)


def _mixture(base: TaskSet, test: TaskSet, prepare: Prepare, augmented: bool, seed: int) -> Mixture:
    if not augmented:
        return Mixture(TaskSet(prepare(base)), TaskSet(test), list(range(len(base))))
    turned = [permute_classes(rotate(base, quarters), seed + quarters) for quarters in range(TURNS)]
    tasks: list[Task] = [task for each in turned for task in prepare(each)]
    return Mixture(TaskSet(tasks), TaskSet(test), list(range(len(base))) * TURNS)


def _split(train: ImagePool, test: ImagePool) -> tuple[ImagePool, ImagePool]:
    """Pools of the same groups with different classes: as they are, else every other class of each group of `train`."""
    if set(train.groups) & set(test.groups):
        return train, test
    place = {group: np.cumsum([g == group for g in train.groups]) for group in set(train.groups)}
    first = [i for i, group in enumerate(train.groups) if place[group][i] % 2]
    second = [i for i, group in enumerate(train.groups) if not place[group][i] % 2]
    if not second:
        raise DataError(f"{train.label}: no group has classes enough to hold some out")
    return train.select(first), train.select(second)
