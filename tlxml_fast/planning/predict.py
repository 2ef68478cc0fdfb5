"""From what somebody asks for to plans and advice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarks.tasks import random_tasks
from ..checkpoint import load_checkpoint
from ..compression import Compression
from ..errors import CheckpointError, LearnerError, TlxError
from ..learners import Learner
from ..memory import parse_bytes
from ..runs import CHECKPOINT, ModelSpec, task_specs
from ..task import TaskSet
from .advice import Advice, advise
from .candidates import candidates
from .engine import Calibrated, Counted, Engine, Projected
from .job import Job
from .phases import Phases
from .plans import Plan
from .rates import Rates, of_devices
from .work import TaskWork

# Tasks that the engine is calibrated on.
CALIBRATED = 256


@dataclass(frozen=True)
class Subject:
    """A learner with some of its tasks; without either where only the number of parameters is known."""

    work: TaskWork
    learner: Learner | None = None
    tasks: TaskSet | None = None
    scale: float = 1.0
    """How many times as many parameters the plan is for."""
    count: int | None = None
    """How many tasks it was trained on."""

    @classmethod
    def of_model(
        cls, spec: ModelSpec, image_size: int, ways: int, shots: int, queries: int, params: int | None = None
    ) -> Subject:
        """Freshly initialised, with tasks of noise: times do not depend on the numbers."""
        features = (1, image_size, image_size)
        learner = spec.build(features, ways, seed=0)
        tasks = TaskSet.lazy(
            lambda i: random_tasks(1, features, shots, ways=ways, queries=queries, seed=i)[0], CALIBRATED
        )
        return cls._of(learner, tasks, params)

    @classmethod
    def of_parameters(cls, q: int, image_size: int, ways: int, shots: int, queries: int) -> Subject:
        """Of a network of q parameters that is not known further."""
        return cls(TaskWork.bare(q, ways, shots, queries, image_size**2))

    @classmethod
    def of_run(cls, run: str | os.PathLike[str], params: int | None = None) -> Subject:
        """Of a run's checkpoint, with its training tasks."""
        path = Path(run) if Path(run).is_file() else Path(run) / CHECKPOINT
        if not path.exists():
            raise CheckpointError(f"there is no {path}; `tlxml-fast train` makes it")
        learner = load_checkpoint(path)
        spec, _ = task_specs(learner, path)
        return cls._of(learner, spec.tasks(), params, spec.count)

    @classmethod
    def _of(cls, learner: Learner, tasks: TaskSet, params: int | None, count: int | None = None) -> Subject:
        learner.refuse_influence()
        work = TaskWork.of(learner, tasks[0])
        if params is None or params == work.q:
            return cls(work, learner, tasks, 1.0, count)
        return cls(work.scaled(params), learner, tasks, params / work.q, count)


@dataclass(frozen=True)
class Prediction:
    """All plans of a job, which one to use, and where the rates are from."""

    job: Job
    rates: Rates
    engine: Engine
    plans: tuple[Plan, ...]
    advice: Advice

    @property
    def sources(self) -> tuple[str, str]:
        """Of rates, and of times of tasks."""
        return self.rates.source, self.engine.source

    def describe(self) -> dict[str, Any]:
        """JSON; seconds, bytes, flops."""
        work = self.job.work
        return {
            "tasks": self.job.tasks,
            "test_tasks": self.job.tests,
            "parameters": work.q,
            "kept_a_gradient": self.job.width,
            "flops_a_gradient": work.primal + work.vector,
            "rows_a_task": work.outputs,
            "processes": self.rates.processes,
            "rates": {key: value for key, value in vars(self.rates).items() if key != "source"},
            "sources": list(self.sources),
            "plans": [plan.describe() for plan in self.plans],
            "advice": {
                "plan": None if self.advice.plan is None else self.advice.plan.name,
                "why": list(self.advice.why),
            },
        }


def predict(
    subject: Subject,
    tasks: int | None = None,
    tests: int = 32,
    devices: str = "cpu",
    memory: str | int | None = None,
    rows_per_task: int = 8,
    compression: Compression | None = None,
    hours: float = 1.0,
) -> Prediction:
    """What every curvature and inverse would take.

    tasks          as many as the run was trained on unless given
    devices        "cpu", measured now, or such as "64xH100", from data sheets; one process each
    memory         bytes a process may have, or "8GiB"
    rows_per_task  of a Fisher sketch
    compression    of gradients and rows
    hours          what an exact one may take

    A few seconds, and a few tasks worked through, where devices are this machine; else none. Raises TlxError for what
    cannot be: no tasks, unknown devices.
    """
    tasks = subject.count if tasks is None else tasks
    if tasks is None:
        raise TlxError("say for how many training tasks (--tasks)")
    for what, count in (("training tasks", tasks), ("test tasks", tests), ("rows per task", rows_per_task)):
        if count < 1:
            raise TlxError(f"there are at least 1 {what}, not {count:,}")
    if not 0 < hours < float("inf"):
        raise TlxError(f"hours is above 0, not {hours:g}")
    if compression is not None:
        compression.check(subject.work.q)
    rates, sheet = of_devices(devices, None if memory is None else parse_bytes(memory))
    if tasks < rates.processes or tests < rates.processes:
        few = min(tasks, tests)
        raise TlxError(
            f"{rates.processes:,} devices are more than there are training or test tasks ({few:,})"
        )
    job = Job(tasks, tests, subject.work, rows_per_task, compression)
    engine: Engine
    if subject.learner is None or sheet is not None:
        engine = Counted(subject.work, rates)
        if compression is not None:
            engine = Projected(engine, subject.work, rates)
    else:
        sample = subject.tasks[: min(tasks, CALIBRATED, len(subject.tasks))]
        engine = Calibrated(subject.learner, sample, subject.work, rates, compression, subject.scale)
    found = tuple(candidates(Phases(job, rates, engine)))
    return Prediction(job, rates, engine, found, advise(found, 3600 * hours))


def subject_of(
    run: str | os.PathLike[str] | None,
    learner: str,
    model: str | None,
    hidden: int,
    inner_steps: int,
    image_size: int,
    shape: Sequence[int],
    params: int | None,
) -> Subject:
    """From a run's directory, a model by name, or a number of parameters alone."""
    if params is not None and params < 1:
        raise TlxError(f"there is at least 1 parameter, not {params:,}")
    if run is not None:
        return Subject.of_run(run, params)
    if min(shape) < 1:
        raise LearnerError(f"ways, shots and queries are at least 1, not {', '.join(map(str, shape))}")
    if model is None and params is not None:
        return Subject.of_parameters(params, image_size, *shape)
    spec = ModelSpec(learner, model or "conv4", hidden, inner_steps=inner_steps)
    return Subject.of_model(spec, image_size, *shape, params=params)
