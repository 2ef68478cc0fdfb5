"""Predictions of `tlxml-fast plan` beside what runs took: each is predicted, run, and predicted again.

    python -m tlxml_fast.benchmarks.plan --out benchmarks/results

On a machine that others use too, two predictions of one run differ: that is the noise a comparison has. How many
iterations conjugate gradients take is guessed; what they took is written beside, with the prediction for that many.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import CG, MAML, Dense, Fisher, GaussNewton, ProtoNet, Relative, Sketch, TaskInfluence, Woodbury
from ..curvature import Curvature
from ..data import glyphs
from ..errors import InfluenceWarning
from ..files import write_json, write_text
from ..learners import Learner
from ..models import conv4, mlp
from ..planning.plans import Plan
from ..planning.predict import Subject, predict
from ..planning.units import time_of
from ..planning.work import TaskWork
from ..solvers import Inverse
from ..task import TaskSet
from ..training import meta_train
from .machine import described, sentence
from .measure import Row
from .tasks import random_tasks

STEPS, DAMPING, WITHIN = ("gradients", "curvature", "scores"), 1e-3, 0.3
SHAPE = {"ways": 5, "shots": 5, "queries": 5}


@dataclass(frozen=True)
class Run:
    """A computation, and the plan that is of it."""

    work: str
    learner: Callable[[], Learner]
    tasks: Callable[[], tuple[TaskSet, TaskSet]]
    curvature: Curvature
    inverse: Inverse
    plan: str
    rows_per_task: int = 4
    updates: int = 60


def glyph_tasks(train: int, test: int) -> tuple[TaskSet, TaskSet]:
    """5-way 5-shot tasks of 5 queries a class."""
    return tuple(
        TaskSet(glyphs(split).sample(n, **SHAPE, seed=0)) for split, n in (("train", train), ("test", test))
    )


def vector_tasks(train: int, test: int) -> tuple[TaskSet, TaskSet]:
    """5-way 5-shot tasks of 15 queries a class, of 34 numbers."""
    return random_tasks(train, (34,), 5, seed=0), random_tasks(test, (34,), 5, seed=1)


damped = Relative(DAMPING)
RUNS = (
    Run(
        "MAML, MLP 34-32-5, 1 step; 256 × 32 tasks",
        lambda: MAML(mlp(34, 32, 5, seed=0), 0.4, 1),
        lambda: vector_tasks(256, 32),
        GaussNewton(),
        Dense(damped),
        "GaussNewton + Dense",
    ),
    Run(
        "ProtoNet, Conv4-16; 64 × 16 tasks",
        lambda: ProtoNet(conv4(16, seed=0)),
        lambda: glyph_tasks(64, 16),
        Fisher(4),
        Woodbury(damped),
        "Fisher(4) + Woodbury",
    ),
    Run(
        "ProtoNet, Conv4-8; 48 × 8 tasks",
        lambda: ProtoNet(conv4(8, seed=0)),
        lambda: glyph_tasks(48, 8),
        GaussNewton(),
        CG(damped, tol=1e-4, preconditioner=Sketch(Fisher(16))),
        "GaussNewton + CG, Sketch(Fisher(16))",
        rows_per_task=16,
    ),
)


def compare(run: Run) -> Row:
    """Predicted, run, and predicted again."""
    learner, (train, test) = run.learner(), run.tasks()
    meta_train(learner, train, steps=run.updates, batch_size=4, weight_decay=1e-3, progress=False)
    subject = Subject(TaskWork.of(learner, train[0]), learner, train, count=len(train))

    def predicted() -> Plan:
        found = predict(subject, tests=len(test), rows_per_task=run.rows_per_task).plans
        return next(plan for plan in found if plan.name == run.plan)

    before = predicted()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfluenceWarning)
        scores = TaskInfluence(learner, run.curvature, run.inverse).fit(train).scores(test)
    total = time.perf_counter() - start
    after = predicted()
    each = [by_step(plan) for plan in (before, after)]
    row = {
        "work": f"{run.work}, {run.plan}",
        "measured": {**{step: scores.info["seconds"][step] for step in STEPS}, "total": total},
        "predicted": [
            {**steps, "total": plan.seconds} for steps, plan in zip(each, (before, after), strict=True)
        ],
        "phases": before.describe()["phases"],
    }
    if before.assumes:
        took = scores.info["certificate"]["iterations"]
        row |= {"assumed": before.assumes, "iterations": took}
        again = [with_iterations(plan, took) for plan in (before, after)]
        row["predicted_for_iterations"] = [{**by_step(plan), "total": plan.seconds} for plan in again]
    return row


def by_step(plan: Plan) -> dict[str, float]:
    """Seconds of the three parts that scores state: what precedes the test tasks' gradients, and what follows."""
    names = [phase.name for phase in plan.phases]
    tests = names.index("test gradients")
    return dict(zip(STEPS, (plan.each[0], sum(plan.each[1:tests]), sum(plan.each[tests:])), strict=True))


def with_iterations(plan: Plan, count: int) -> Plan:
    """The plan for another number of iterations."""
    assumed = int(plan.assumes.split()[0])
    phases = tuple(
        phase.repeated(f"{count} iterations", count / assumed) if phase.name == plan.assumes else phase
        for phase in plan.phases
    )
    return replace(plan, phases=phases)


# ---- what is said ---------------------------------------------------------------------------------------------


def lines(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    for row in rows:
        for step in (*STEPS, "total"):
            measured = row["measured"][step]
            both = [found[step] for found in row["predicted"]]
            ratio = measured / statistics.geometric_mean(both)
            yield (
                row["work"] if step == STEPS[0] else "",
                step,
                f"{time_of(min(both))} … {time_of(max(both))}",
                time_of(measured),
                f"{ratio:.2f}",
            )
        if "iterations" in row:
            both = [found["total"] for found in row["predicted_for_iterations"]]
            ratio = row["measured"]["total"] / statistics.geometric_mean(both)
            said = f"total at the {row['iterations']} iterations it took ({row['assumed']} assumed)"
            yield (
                "",
                said,
                f"{time_of(min(both))} … {time_of(max(both))}",
                time_of(row["measured"]["total"]),
                f"{ratio:.2f}",
            )


def markdown(found: dict[str, Any]) -> str:
    """plan.md."""
    head = ("run", "part", "predicted, before … after", "measured", "measured / predicted")
    cells = [head, ("---",) * len(head), *lines(found["runs"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    about = sentence(found["machine"])
    return (
        f"{about}.\n\nEach run was predicted before and after it by `tlxml-fast plan`'s formulas, calibrated in the "
        f"same process; two predictions differ by what else the machine did.\n\n{table}\n"
    )


def main() -> None:
    """The table, printed and written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--only", default="", help="runs with this in their name")
    options = parser.parse_args()
    rows = [compare(run) for run in RUNS if options.only in f"{run.work}, {run.plan}"]
    found = {"machine": described(), "runs": rows}
    text = markdown(found)
    Console(width=140).print(text, markup=False)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "plan.json", found)
    write_text(options.out / "plan.md", text)


if __name__ == "__main__":
    main()
