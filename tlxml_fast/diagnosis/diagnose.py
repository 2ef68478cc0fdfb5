"""diagnose: a fitted influence and test tasks in, graded assumptions out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import TlxError
from ..influence import TaskInfluence
from ..learners import Learner
from ..scores import TaskAxis
from ..targets import check_target
from ..task import Task, TaskSet
from .check import Check, worst
from .confidence import confidence
from .damped import damped
from .gauss_newton import gauss_newton
from .linearity import linearity
from .negative import negative_curvature
from .record import key
from .residuals import residuals
from .seeds import sketch, training
from .stability import damping, rank
from .stationarity import stationarity
from .subject import Subject
from .tasks import tasks
from .verdict import in_sentences, trust

CHECKS: dict[str, Callable[[Subject], Check]] = {
    "tasks": tasks,
    "confidence": confidence,
    "residuals": residuals,
    "stationarity": stationarity,
    "damping": damping,
    "rank": rank,
    "damped part": damped,
    "linearity": linearity,
    "Gauss-Newton": gauss_newton,
    "negative curvature": negative_curvature,
    "sketch": sketch,
}


@dataclass(frozen=True)
class Diagnosis:
    """Graded assumptions of one influence run.

    checks  in the order they were made
    info    how the diagnosis was made, and of what; JSON
    """

    checks: tuple[Check, ...]
    info: dict[str, Any]

    def __getitem__(self, name: str) -> Check:
        """The check of that name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise TlxError(f"the checks are {', '.join(check.name for check in self.checks)}, not {name!r}")

    @property
    def grade(self) -> str:
        """The worst grade that a check has."""
        return worst(check.grade for check in self.checks)

    @property
    def verdict(self) -> list[str]:
        """What can be trusted and what to do, in two to four sentences."""
        return in_sentences(self.checks)

    @property
    def trust(self) -> dict[str, str]:
        """The grade of every reading of the scores: ranks, signs, sizes, groups."""
        return trust(self.checks)

    @property
    def heading(self) -> str:
        """What was diagnosed, in a line."""
        made, compression = self.info["curvature"], self.info["compression"]
        compressed = f", compressed to {compression['dimension']:,}" if compression else ""
        return (
            f"{made['curvature']} curvature, {made['inverse']} inverse{compressed}: {self.info['training_tasks']:,} "
            f"training × {self.info['test_tasks']:,} test tasks, in {self.info['seconds']:.0f} s"
        )

    def describe(self) -> dict[str, Any]:
        """JSON."""
        return {
            "grade": self.grade,
            "verdict": self.verdict,
            "trust": self.trust,
            "checks": [check.describe() for check in self.checks],
            **self.info,
        }


def diagnose(
    influence: TaskInfluence,
    test_tasks: TaskSet | Iterable[Task],
    *,
    target: str = "loss",
    retrained: Sequence[Learner] = (),
    hessian_tasks: int | None = None,
) -> Diagnosis:
    """Check the assumptions of influence functions on a fitted influence and its scores of `test_tasks`.

    influence      after `fit`; what is checked is its curvature, inverse and tasks
    target         what the scores explain
    retrained      learners trained on the same tasks from other seeds: whether they rank tasks alike is checked too
    hessian_tasks  the exact Hessian is computed at so many of the fitted tasks, chosen evenly; unless given 64, or 16
                   above 2,000 parameters

    Beside the influence itself it takes about three more solves; one exact Hessian-vector product of every task, and
    for each of hessian_tasks q more up to 2,000 parameters, at most 180 above; one more influence where it is sketched,
    and one for each of `retrained`. A check that the model has no derivatives for is graded "unknown", and says why.

    Raises TlxError before any work for an influence that was not fitted, Identity(), or a job of several processes; and
    what `scores` raises.
    """
    check_arguments(target, hessian_tasks)
    start = time.perf_counter()
    subject = Subject(influence, test_tasks, target, hessian_tasks)
    for learner in retrained:
        learner.refuse_influence()
    _ = subject.values  # errors of the scores themselves are not a check's
    made = [_made(name, check, subject) for name, check in CHECKS.items()]
    made.append(training(subject, retrained))
    described = {name: value for name, value in influence.report["curvature"].items() if name != "spectrum"}
    depends = {**influence.report, "training": influence.learner.training}
    info = {
        "of": key(depends, subject.train_ids, TaskAxis.of(subject.tests).ids, target),
        "curvature": described,
        "compression": influence.report["compression"],
        "target": target,
        "training_tasks": len(subject.train),
        "test_tasks": len(subject.tests),
        "hessian_tasks": len(subject.sample),
        "retrained": len(retrained),
        "seconds": time.perf_counter() - start,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return Diagnosis(tuple(made), info)


def check_arguments(target: str, hessian_tasks: int | None) -> None:
    """Raise TlxError for what `diagnose` does not take."""
    check_target(target)
    if hessian_tasks is not None and hessian_tasks < 1:
        raise TlxError(f"hessian_tasks is at least 1, not {hessian_tasks}")


def _made(name: str, check: Callable[[Subject], Check], subject: Subject) -> Check:
    """The check, or the reason why it cannot be made."""
    try:
        return check(subject)
    except (TlxError, RuntimeError) as error:  # torch's, where a model lacks a derivative or memory runs out
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check(name, "unknown", f"Could not be measured: {reason.rstrip('.')}.")
