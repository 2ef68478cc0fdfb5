"""Influence as the attributors of dattri and captum: their calls, their orientation, their sign.

Both have a positive score where a training example is helpful, the opposite of I_perf for a loss. Examples are tasks:
a `TaskSet`, or whatever `parse_tasks` reads, a data loader of tasks included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..errors import TlxError
from ..influence import TaskInfluence
from ..parse import parse_tasks
from ..scores import Scores
from ..task import Task, TaskSet

if TYPE_CHECKING:
    from captum.influence import DataInfluence
    from dattri.algorithm.base import BaseAttributor

Tasks = TaskSet | Iterable[Task]


class MostInfluential(NamedTuple):
    """The k training tasks of every test task at one end, [n_test, k] each, as captum gives them."""

    indices: Tensor
    influence_scores: Tensor


def dattri_attributor(influence: TaskInfluence) -> BaseAttributor:
    """A dattri `BaseAttributor`: `cache(train)` fits, `attribute(train, test)` gives −I_perf, [n_train, n_test].

    So that `dattri.metric` applies: a linear datamodelling score is that of minus the loss. Raises TlxError without
    dattri.
    """
    try:
        from dattri.algorithm.base import BaseAttributor
    except ImportError:
        raise TlxError("dattri_attributor needs dattri: pip install dattri") from None

    class TaskAttributor(BaseAttributor):
        """Training tasks down, test tasks across; positive is helpful."""

        def __init__(self) -> None:
            self.influence = influence

        def cache(self, full_train_dataloader: Tasks) -> None:
            """Fit to these training tasks."""
            influence.fit(tasks_of(full_train_dataloader))

        def attribute(self, train_dataloader: Tasks, test_dataloader: Tasks) -> Tensor:
            """−I_perf of the training tasks given, [n_train, n_test]; those not cached are scored as if added."""
            return helpfulness(
                influence.scores(tasks_of(test_dataloader), tasks_of(train_dataloader))
            ).mT.contiguous()

    return TaskAttributor()


def captum_influence(influence: TaskInfluence) -> DataInfluence:
    """A captum `DataInfluence` of a fitted influence: `influence(inputs, k, proponents)` and `self_influence(inputs)`.

    Raises TlxError without captum.
    """
    try:
        from captum.influence import DataInfluence
    except ImportError:
        raise TlxError("captum_influence needs captum: pip install captum") from None

    class CaptumInfluence(DataInfluence):
        """Test tasks down, training tasks across; positive is helpful: a proponent."""

        def __init__(self) -> None:
            self.task_influence = influence

        def influence(
            self, inputs: Tasks, k: int | None = None, proponents: bool = True, **options: Any
        ) -> Tensor | MostInfluential:
            """−I_perf, [n_test, n_train]; with k, the k most helpful training tasks, or the most harmful."""
            scores = influence.scores(tasks_of(inputs), **options)
            if k is None:
                return helpfulness(scores)
            indices = (scores.helpful(k) if proponents else scores.harmful(k)).indices
            return MostInfluential(indices, helpfulness(scores).gather(-1, indices))

        def self_influence(self, inputs: Tasks) -> Tensor:
            """−I_perf of every task on itself, [n]; tasks that were not fitted as if they were added."""
            tasks = tasks_of(inputs)
            return helpfulness(influence.scores(tasks, tasks)).diagonal().clone()

    return CaptumInfluence()


def helpfulness(scores: Scores) -> Tensor:
    """−I_perf for a loss, I_perf for a margin or a probability: positive where a training task is helpful."""
    return scores.values if scores.larger_is_better else -scores.values


def tasks_of(given: Any) -> TaskSet:
    """Tasks, or batches of tasks as a data loader with `collate_fn=list` gives them."""
    if isinstance(given, TaskSet):
        return given
    items = list(given)
    return parse_tasks([task for item in items for task in (item if isinstance(item, list) else [item])])
