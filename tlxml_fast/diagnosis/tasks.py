"""Are the fitted tasks those that were trained on?"""

from __future__ import annotations

from typing import Any

from .check import Check, at_least
from .subject import Subject

SEEN = (0.99, 0.5)


def tasks(subject: Subject) -> Check:
    """Fitted tasks against tasks trained on, and how many of these training ever drew.

    A score has a leave-one-out reading for a task of the objective that ω̂ minimises. Training draws b of T tasks in
    each of s steps, so that it is expected to have seen 1 − (1 − b/T)^s of them: good from 99% on if all T are fitted;
    doubtful where fewer are (the curvature is then an estimate, and scores compare tasks but predict no removal), or
    down to one of two; bad below, where most scores are of tasks that training never met. Unknown where training
    recorded nothing.
    """
    fitted, record = len(subject.train), subject.learner.training
    values: dict[str, Any] = {"fitted": fitted, "directions": subject.directions, "parameters": subject.q}
    rank = (
        f" They give the Gauss-Newton matrix at most {subject.directions:,} directions for {subject.q:,} parameters: "
        "on the rest the inverse is set by damping and weight decay."
        if subject.directions < subject.q
        else ""
    )
    if not record:
        return Check("tasks", "unknown", f"How the parameters were trained is not recorded.{rank}", values)
    trained, batch = record["tasks"], min(record.get("batch_size", record["tasks"]), record["tasks"])
    done = record.get("done", 1)  # full-batch training to a minimum has no steps
    seen = 1 - (1 - batch / trained) ** done
    values |= {"trained_on": trained, "expected_share_seen": seen}
    grade = at_least(seen, *SEEN)
    if fitted < trained:
        grade = "doubtful" if grade == "good" else grade
    return Check(
        "tasks",
        grade,
        f"{fitted:,} of the {trained:,} tasks trained on are fitted; {done:,} steps of {batch:,} tasks are expected to "
        f"have drawn {seen:.0%} of them.{rank}",
        values,
        "fit to all tasks trained on, and train on a fixed set of them for several epochs",
    )
