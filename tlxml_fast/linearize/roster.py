"""Who the tasks are: their names, content hashes, groups and shapes, gathered once."""

from __future__ import annotations

from functools import cached_property

from ..distributed import World
from ..errors import TaskError
from ..learners import Learner
from ..scores import TaskAxis
from ..task import TaskSet


class Roster:
    """The tasks of a fit, in order; each process looks at its share of them."""

    def __init__(self, tasks: TaskSet, world: World):
        if len(tasks) == 0:
            raise TaskError("there are no tasks")
        self.tasks, self.world = tasks, world

    @cached_property
    def _rows(self) -> list[list]:
        mine = (self.tasks[i] for i in self.world.share(len(self.tasks)))
        return self.world.items([[t.label, t.id, t.group, str(t.shape), t.ways] for t in mine])

    @property
    def axis(self) -> TaskAxis:
        """Names, content hashes and groups."""
        return TaskAxis(*(tuple(row[k] for row in self._rows) for k in range(3)))

    @property
    def shapes(self) -> list[str]:
        """The shapes there are, sorted."""
        return sorted({row[3] for row in self._rows})

    def notes(self, learner: Learner) -> list[str]:
        """Where the model has more outputs than a task has classes."""
        first = {row[4]: i for i, row in reversed(list(enumerate(self._rows)))}
        each = [(ways, learner.check(self.tasks[i])) for ways, i in sorted(first.items())]
        return [f"{outputs} outputs for {ways} ways: the unused logits stay in the softmax"
                for ways, outputs in each if ways < outputs]  # fmt: skip
