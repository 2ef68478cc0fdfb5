"""The learners that experiments are about, built and meta-trained the same way everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data import FeaturePool, ImagePool
from ..learners import MAML, Learner, ProtoNet
from ..models import conv4, mlp
from ..task import TaskSet
from ..training import evaluate, meta_train
from .base import Setup

WORDS, HIDDEN, FILTERS = 34, 32, 8
SMALLEST_IMAGE = 16  # that Conv4 halves four times
WAYS, SHOTS, QUERIES = 5, 5, 10


@dataclass(frozen=True)
class Subject:
    """A learner and how it is meta-trained.

    images   whether it sees images, or else bags of visual words
    build    from a width and a seed to the learner, freshly initialised
    width    of its layers; a quick setup takes a quarter
    """

    name: str
    images: bool
    build: Callable[[int, int], Learner]
    width: int
    training: Mapping[str, Any] = field(default_factory=dict)

    def pools(self, setup: Setup, seed: int) -> tuple[ImagePool | FeaturePool, ImagePool | FeaturePool]:
        """What tasks are drawn from: classes to train on, and others."""
        return (setup.pool("train"), setup.pool("test")) if self.images else setup.features(seed)

    def trained(self, tasks: TaskSet, setup: Setup, seed: int, **changes: Any) -> Learner:
        """Meta-trained on the tasks; a quick setup takes a tenth of the steps."""
        learner = self.build(self.width // 4 if setup.quick else self.width, seed)
        settings = {
            "steps": 1000,
            "batch_size": 8,
            "lr": 1e-2,
            "schedule": "cosine",
            **self.training,
            **changes,
        }
        if setup.quick:
            settings["steps"] //= 10
        meta_train(learner, tasks, seed=seed, progress=setup.progress, **settings)
        return learner


def describe_fit(learner: Learner, train: TaskSet, test: TaskSet) -> dict[str, float]:
    """Accuracy and loss on the tasks trained on and on others: the generalisation gap; JSON."""
    on_train, on_test = evaluate(learner, train), evaluate(learner, test)
    return {
        "train_accuracy": on_train.accuracy,
        "test_accuracy": on_test.accuracy,
        "train_loss": on_train.loss,
        "test_loss": on_test.loss,
    }


# Distances of the ProtoNets are means over the embedding: queries are then not all but certain.
MAML_MLP = Subject(
    "MAML, MLP", False, lambda width, seed: MAML(mlp(WORDS, width, WAYS, seed=seed), inner_lr=0.5), HIDDEN
)
PROTONET_MLP = Subject(
    "ProtoNet, MLP",
    False,
    lambda width, seed: ProtoNet(mlp(WORDS, width, width, seed=seed), scale=1 / width),
    HIDDEN,
)
MAML_CONV4 = Subject(
    "MAML, Conv4",
    True,
    lambda width, seed: MAML(conv4(width, ways=WAYS, seed=seed), inner_lr=0.5),
    FILTERS,
    {"batch_size": 4, "steps": 500},
)
PROTONET_CONV4 = Subject(
    "ProtoNet, Conv4",
    True,
    lambda width, seed: ProtoNet(conv4(width, seed=seed), scale=1 / width),
    FILTERS,
    {"batch_size": 4, "steps": 500},
)
SUBJECTS = (MAML_MLP, PROTONET_MLP, MAML_CONV4, PROTONET_CONV4)


def subjects(setup: Setup, images: bool | None = None) -> tuple[Subject, ...]:
    """Those that can be trained on the setup's images, or only those that see images (or do not)."""
    large = setup.pool("train").image_size >= SMALLEST_IMAGE
    return tuple(s for s in SUBJECTS if (large or not s.images) and images in (None, s.images))
