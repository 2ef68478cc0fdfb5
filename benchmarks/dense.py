"""Dense G and all scores: a whole influence run beside general tools, conjugate gradients first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from ..learners import Learner
from ..task import TaskSet
from . import arithmetic
from .cases import mlp_learner, tiny, vector_tasks
from .dense_contest import ROUNDING, composed, whole
from .general import CG
from .measure import OURS, Goal, Row, Settings, validate
from .problem import Problem, available
from .tasks import random_tasks

# Formulas are validated in float64, on so many tasks of each set, well conditioned, CG run to rounding.
VALIDATED, WELL_CONDITIONED = 2, 0.05


@dataclass(frozen=True)
class DenseCase:
    """Scores of `test` tasks by `train` tasks with (G + damping·I)⁻¹, from tasks and parameters to the numbers.

    whole  every contestant is run from end to end. Else those that would take many minutes are composed: the seconds
           of one product over all tasks, times the products they need
    """

    name: str
    learner: Callable[[], Learner]
    tasks: Callable[[int, int], TaskSet]
    """From a number and a seed."""
    train: int
    test: int
    damping: float
    whole: bool
    goals: tuple[Goal, ...] = ()

    @property
    def in_processes(self) -> bool:
        """Whether the contestants' peak memory is measured."""
        return self.whole

    def run(self, settings: Settings) -> Row:
        """Validated on a few tasks, then timed; residuals and scores are compared on all."""
        few = replace(self, train=VALIDATED, test=VALIDATED, damping=WELL_CONDITIONED)
        small = few.problem(settings.seed, torch.float64, settings.device)
        truth = small.influence("reference")[1].values
        ways, missing = available(small.general(ROUNDING))
        errors = validate({OURS: lambda: small.influence()[1].values, **ways}, truth)
        problem = self.problem(settings.seed, device=settings.device)
        timings, dense = (whole if self.whole else composed)(problem, not missing, errors, settings)
        work = arithmetic.scores(problem.learner, problem.train, problem.test)
        return {
            "tasks": self.train,
            "vectors": self.test,
            "timings": {name: asdict(t) for name, t in timings.items()},
            "missing": missing,
            "goals": [judged for goal in self.goals for judged in goal.judged(timings)],
            "arithmetic": arithmetic.rates(work, timings[OURS].median, settings.reached_now()),
            "dense": {"damping": self.damping, **dense},
        }

    def alone(self, name: str) -> Callable[[], object]:
        """One of the contestants, ready to run; CG stops early, which takes no less memory."""
        problem = self.problem(0)
        return problem.influence if name == OURS else problem.general(0.5).ways()[name]

    def tiny(self) -> DenseCase:
        """The same on hardly any work: what is loaded and chosen on first use is then there."""
        learner, shape = tiny(self.learner())

        def tasks(count: int, seed: int) -> TaskSet:
            return random_tasks(count, shape, 1, seed=seed)

        return replace(self, learner=lambda: learner, tasks=tasks, train=1, test=1)

    def problem(self, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Problem:
        """The learner and both sets of tasks."""
        learner = self.learner()
        learner.module.to(device, dtype)
        learner.body.template.to(device, dtype)
        train, test = self.tasks(self.train, 2 * seed), self.tasks(self.test, 2 * seed + 1)
        return Problem(learner, train, test, self.damping, dtype)


DENSE = (
    DenseCase("dense G and scores, MAML MLP 34-32-5, 5 steps, 64 training × 8 test tasks", mlp_learner(5),
              vector_tasks, 64, 8, 4e-4, whole=True),
    DenseCase("dense G and scores, MAML MLP 34-32-5, 5 steps, 1,024 training × 128 test tasks", mlp_learner(5),
              vector_tasks, 1024, 128, 4e-4, whole=False, goals=(Goal((CG,), 20, 50),)),
)  # fmt: skip
