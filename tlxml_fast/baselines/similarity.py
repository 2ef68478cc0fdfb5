"""Tasks compared by the mean embedding of their examples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..errors import LearnerError
from ..learners import Episode, Learner, ProtoNet
from ..learners.body import Body
from ..parallel import task_threads
from ..scores import Scores
from ..task import Task, TaskSet
from .base import begun

METRICS = ("cosine", "euclidean")


def embedding_similarity(
    learner: Learner,
    train_tasks: TaskSet | Iterable[Task],
    test_tasks: TaskSet | Iterable[Task],
    metric: str = "cosine",
) -> Scores:
    """−cos(z̄_i, z̄_j), or ‖z̄_i − z̄_j‖ with metric="euclidean": tasks that look alike are taken to help.

    z̄_t is the mean embedding of the support and query examples of t at ω: by a ProtoNet's encoder, or by any other
    learner's nn.Sequential before its last layer with parameters. One forward pass a task. (Nearest neighbours in the
    last hidden layer: Hanawa et al., Evaluation of similarity-based explanations, ICLR 2021.)

    Raises LearnerError for a module that is no nn.Sequential and for an unknown metric.
    """
    if metric not in METRICS:
        raise LearnerError(f"metric is one of {', '.join(METRICS)}, not {metric!r}")
    baseline = begun("embedding similarity", learner, train_tasks, test_tasks, metric=metric)
    embed = _embedding(learner)
    z_train, z_test = (_means(learner, embed, tasks) for tasks in (baseline.train, baseline.test))
    baseline.settings["dimension"] = z_train.shape[1]
    if metric == "euclidean":
        # by differences: as a² + b² − 2ab, those of near tasks would be rounding
        return baseline.scores(torch.stack([(z_train - z).norm(dim=1) for z in z_test]))
    z_train, z_test = (torch.nn.functional.normalize(z, dim=1) for z in (z_train, z_test))
    return baseline.scores(-z_test @ z_train.mT)


def without_head(module: nn.Module) -> nn.Sequential:
    """The module before its last layer with parameters; layers are shared, and parameters keep their names.

    Raises LearnerError for anything but an nn.Sequential.
    """
    if not isinstance(module, nn.Sequential):
        raise LearnerError(
            f"the layer before the last is known of an nn.Sequential, and this is a {type(module).__name__}"
        )
    layers = OrderedDict(module.named_children())
    while layers:
        name, last = layers.popitem()
        if isinstance(last, nn.Sequential) and _has_parameters(last):
            layers[name] = without_head(last)
        if _has_parameters(last):
            break
    return nn.Sequential(layers)


def _has_parameters(layer: nn.Module) -> bool:
    return next(layer.parameters(), None) is not None


def _embedding(learner: Learner) -> Callable[[Episode], Tensor]:
    """Embeddings of all examples of a task, [m + n, D]."""
    omega = {name: p.detach() for name, p in learner.parameters().items()}
    if isinstance(learner, ProtoNet):
        return lambda episode: torch.cat(learner.embed(omega, episode))
    trunk = Body(without_head(learner.module), learner.norm)
    own = {name: omega[name] for name in trunk.parameters()}
    return lambda episode: trunk(own, torch.cat([episode.support_x, episode.query_x])).flatten(1)


def _means(learner: Learner, embed: Callable[[Episode], Tensor], tasks: TaskSet) -> Tensor:
    """z̄ of every task, [T, D], float64."""
    like = next(iter(learner.parameters().values()))

    @torch.no_grad()
    def mean(task: Task) -> Tensor:
        return embed(Episode.of(task, like.dtype, like.device)).double().mean(0)

    with task_threads(like.device.type == "cpu") as each:
        return torch.stack(list(each(mean, tasks)))
