"""Influence as an explainer of quanda, so that its metrics apply to tasks.

Its examples are tensors with a class label each. A task goes by its place among the training tasks and, after them, the
test tasks, and its label is the number of its group. Positive is helpful, the opposite of I_perf for a loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..errors import TaskError, TlxError
from ..influence import TaskInfluence
from ..task import TaskSet
from .attributors import Tasks, helpfulness, tasks_of

if TYPE_CHECKING:
    from quanda.explainers import Explainer


def quanda_explainer(influence: TaskInfluence, train: Tasks, test: Tasks) -> Explainer:
    """A quanda `Explainer` of an influence that is fitted to `train`: −I_perf, [n_test, n_train].

    `explain(explainer.test_data)` explains the test tasks, whose groups' numbers are `explainer.test_targets`, and
    `self_influence()` the training tasks by themselves. Metrics take these and `explainer.train_dataset`; one that runs
    a model on examples itself cannot take places for them.

    Raises TlxError without quanda, and TaskError for a place where there is no task.
    """
    try:
        from quanda.explainers import Explainer
    except ImportError:
        raise TlxError("quanda_explainer needs quanda: pip install quanda") from None

    train = tasks_of(train)
    everything = TaskSet([*train, *tasks_of(test)])
    groups = {group: number for number, group in enumerate(dict.fromkeys(task.group for task in everything))}
    places = torch.arange(len(everything))
    labels = torch.tensor([groups[task.group] for task in everything])

    class TaskExplainer(Explainer):
        """Test tasks down, training tasks across; positive is helpful."""

        accepted_tasks = ["image_classification"]  # noqa: RUF012 - as quanda declares it
        test_data, test_targets = places[len(train) :], labels[len(train) :]

        def explain(self, test_data: Iterable[int] | Tensor, targets: Any = None) -> Tensor:
            """−I_perf of the training tasks on those at these places; `targets` are not looked at."""
            chosen = [int(place) for place in test_data]
            if missing := [place for place in chosen if not 0 <= place < len(everything)]:
                raise TaskError(f"there is no task at place {missing[0]} of {len(everything)}")
            scores = influence.scores(TaskSet([everything[place] for place in chosen]), train)
            return helpfulness(scores).to(self.device)

    dataset = TensorDataset(places[: len(train)], labels[: len(train)])
    return TaskExplainer(influence.learner.module, dataset)
