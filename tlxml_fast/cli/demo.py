"""tlxml-fast demo: the main job on embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..curvature import Fisher
from ..data.spec import TaskSpec
from ..learners import Learner
from ..runs import CHECKPOINT, REPORT, SCORES, ModelSpec, influence_run, report_run, train_run
from ..scores import Scores
from ..solvers import Relative, Woodbury
from .common import Device, Out, Quiet, Seed, command, console


def demo(
    out: Out = Path("runs/demo"),
    tasks: Annotated[int, typer.Option(help="Training tasks.")] = 512,
    test_tasks: Annotated[int, typer.Option(help="Held-out tasks to explain.")] = 32,
    steps: Annotated[int, typer.Option(help="Meta-updates.")] = 150,
    seed: Seed = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Meta-train a ProtoNet on glyphs of several scripts, explain it, and write the report."""
    shape = {"ways": 5, "shots": 5, "queries": 5}
    learner = train_run(
        out,
        TaskSpec(split="train", count=tasks, seed=seed, **shape),
        TaskSpec(split="test", count=max(test_tasks, 100), seed=seed + 1, **shape),
        # the mean over the embedding's 32 numbers for their sum: queries are then not all but certain
        ModelSpec(hidden=32, scale=1 / 32),
        seed=seed,
        device=device,
        progress=not quiet,
        steps=steps,
        batch_size=4,
        lr=3e-3,
        schedule="cosine",
        weight_decay=1e-3,
    )
    scores = influence_run(
        out,
        out,
        curvature=Fisher(8),
        inverse=Woodbury(damping=Relative(1e-3)),
        test_tasks=test_tasks,
        device=device,
        progress=not quiet,
    )
    report_run(out, out / REPORT, command())
    _summarise(learner, scores, out)


def _summarise(learner: Learner, scores: Scores, out: Path) -> None:
    last = learner.training["history"][-1]
    console.print(
        f"\nHeld-out accuracy {last['accuracy']:.1%} ± {last['accuracy_interval']:.1%}. "
        f"{len(scores.train)} training × {len(scores.test)} test tasks:",
        highlight=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("test task", "most helpful", "I_perf", "most harmful", "I_perf"):
        table.add_column(heading, justify="right" if heading == "I_perf" else "left")
    helpful, harmful = scores.helpful(1), scores.harmful(1)
    for i in range(min(5, len(scores.test))):
        cells = [scores.test.names[i]]
        for ranking in (helpful, harmful):
            cells += [scores.train.names[int(ranking.indices[i, 0])], f"{float(ranking.values[i, 0]):+.3g}"]
        table.add_row(*map(Text, cells))
    console.print(table)
    console.print(
        f"I_perf < 0: upweighting the training task lowers the test task's loss.\n\n"
        f"The report is      {out / REPORT}\nThe scores are     {out / SCORES}\nThe checkpoint is  {out / CHECKPOINT}",
        highlight=False,
    )
