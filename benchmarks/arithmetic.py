"""How much work a comparison is: flops of its linear maps, and bytes that must move whatever computes it.

`planning/work.py` says how flops are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..learners import Learner
from ..planning.work import TaskWork
from ..profiling import Peaks
from ..task import TaskSet
from .measure import Row


@dataclass(frozen=True)
class Work:
    """Flops, of them `vectors` for the vectors alone, without what they share; and compulsory bytes."""

    flops: float
    bytes: float
    vectors: float = 0.0


def rates(work: Work, seconds: float, reached: Peaks) -> Row:
    """The rates of `work` in so many seconds, and their shares of the machine's."""
    flops, bytes = work.flops / seconds, work.bytes / seconds
    return {
        "flops": work.flops,
        "bytes": work.bytes,
        "flops_per_second": flops,
        "bytes_per_second": bytes,
        "of_sgemm": flops / reached.flops,
        "of_copy": bytes / reached.bytes,
    }


class Counter:
    """The work of a learner's quantities over tasks of one shape."""

    def __init__(self, learner: Learner, tasks: TaskSet):
        self.task, self.T = TaskWork.of(learner, tasks[0]), len(tasks)
        self.q, self.outputs = self.task.q, self.task.outputs
        self.primal, self.pull_back = self.task.primal, self.task.vector
        self.read = 4 * self.T * self.task.numbers

    def product(self, K: int) -> Work:
        """A Gauss-Newton product with K vectors: there and back again."""
        vectors = self.T * K * 2 * self.pull_back
        return Work(self.T * self.primal + vectors, self.read + 4 * (2 * K + 1) * self.q, vectors)

    def gradients(self) -> Work:
        """Gradients of all tasks."""
        flops = self.T * (self.primal + self.pull_back)
        return Work(flops, self.read + 4 * (self.T + 1) * self.q)

    def matrix(self) -> Work:
        """Dense G: by n(C−1) pull-backs a task and half their Gram matrix, or by q products, whichever is less."""
        by_rows = self.primal + self.outputs * (self.pull_back + self.q**2)
        by_products = self.primal + self.q * 2 * self.pull_back
        return Work(self.T * min(by_rows, by_products), self.read + 8 * self.q**2)


def scores(learner: Learner, train: TaskSet, test: TaskSet) -> Work:
    """Dense G, its eigendecomposition (9q³), gradients of both sets, the solves and the inner products."""
    seen, new = Counter(learner, train), Counter(learner, test)
    q = seen.q
    parts = (seen.matrix(), seen.gradients(), new.gradients())
    rest = 9 * q**3 + 4 * new.T * q**2 + 2 * new.T * seen.T * q
    return Work(sum(p.flops for p in parts) + rest, sum(p.bytes for p in parts) + 8 * new.T * seen.T)
