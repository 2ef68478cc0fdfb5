"""Sketched rows: how well scores by `Fisher(s)` rank training tasks as those by the Gauss-Newton matrix itself do.

    python -m tlxml_fast.benchmarks.sketch --out benchmarks/results [--full | --tasks]

Both are scores of the same tasks at the same absolute damping; of every test task, Spearman's correlation between them
over the training tasks. The default is two small problems whose exact matrices are dense, in minutes: MAML, uncertain
of most queries, and a ProtoNet, certain of most. `--full` is a ProtoNet on Conv4-64, exact by the dual of 19,200 rows,
which take 9 GB, their Gram matrix 3 GB, and one seed, half an hour on two cores. `--tasks` is the small ProtoNet by
more and more training tasks, half an hour. Training is without weight decay, which would be damping too.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import spearmanr
from torch import Tensor

from ..curvature import Curvature, Fisher, GaussNewton
from ..curvature.fisher import KINDS
from ..data import glyphs
from ..errors import InfluenceWarning
from ..files import replacing, write_json, write_text
from ..influence import TaskInfluence
from ..learners import MAML, Learner, ProtoNet
from ..models import conv4, mlp
from ..progress import progress_bar
from ..report.figures import DPI, LIGHT, style
from ..solvers import Dense, Inverse, Relative, Woodbury
from ..sweep import DampingSweep
from ..task import TaskSet
from ..training import meta_train
from .machine import described, sentence

Row = dict[str, Any]

SHAPE = {"ways": 5, "shots": 5, "queries": 15}
ROWS = (1, 2, 4, 8, 16, 32)
DAMPINGS = (5e-4, 5e-5, 5e-6)
SEEDS = 2
TASKS, ROWS_BY_TASKS = (64, 256, 1024), (4, 8, 16)
ASKED = 0.95
COLOURS = {
    "lanczos": LIGHT.harmful[1],
    "krylov": LIGHT.harmful[0],
    "rademacher": LIGHT.helpful[1],
    "labels": LIGHT.ink,
}
QUARTILES = (25, 50, 75)


@dataclass(frozen=True)
class Problem:
    """A trained learner, the tasks it is explained by, and inverses for the exact and the sketched matrix."""

    name: str
    learner: Learner
    train: TaskSet
    test: TaskSet
    exact: type[Inverse]
    settings: dict[str, Any]
    sketched: type[Inverse]

    @classmethod
    def maml(cls) -> Problem:
        """MAML on an MLP of 1,405 parameters, images of 8 × 8, 256 training tasks."""
        learner = MAML(mlp(64, 20, 5, seed=0), inner_lr=0.4, inner_steps=5)
        train, test = _tasks(image_size=8)
        meta_train(learner, train, steps=1500, batch_size=8, lr=3e-3, schedule="cosine")
        return cls("MAML MLP 64-20-5", learner, train[:256], test, Dense, {}, Dense)

    @classmethod
    def protonet(cls, count: int = TASKS[0]) -> Problem:
        """A ProtoNet on Conv4-8, 1,896 parameters, 64 training tasks unless told."""
        learner = ProtoNet(conv4(8, seed=0))
        train, test = _tasks()
        meta_train(learner, train, steps=1500, batch_size=1, lr=2e-3, schedule="cosine")
        return cls("ProtoNet Conv4-8", learner, train[:count], test, Dense, {}, Dense)

    @classmethod
    def protonet64(cls) -> Problem:
        """A ProtoNet on Conv4-64, 111,936 parameters, 64 training tasks."""
        learner = ProtoNet(conv4(64, seed=0))
        train, test = _tasks()
        meta_train(learner, train, steps=200, batch_size=2, lr=1e-3)
        exact = {"factor": "cholesky"}
        return cls("ProtoNet Conv4-64", learner, train[:64], test, Woodbury, exact, Woodbury)

    def truth(self) -> DampingSweep:
        """By the Gauss-Newton matrix."""
        inverse = self.exact(damping=Relative(DAMPINGS[0]), **self.settings)
        return self._sweep(GaussNewton(), inverse, [Relative(damping) for damping in DAMPINGS])

    def sketch(self, fisher: Fisher, dampings: tuple[float, ...]) -> DampingSweep:
        """By its sketch."""
        return self._sweep(fisher, self.sketched(damping=dampings[0]), list(dampings))

    def _sweep(
        self, curvature: Curvature, inverse: Inverse, dampings: list[float | Relative]
    ) -> DampingSweep:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", InfluenceWarning
            )  # of a stationary point, which training stopped before
            influence = TaskInfluence(self.learner, curvature, inverse).fit(self.train)
            return influence.damping_sweep(dampings, self.test)


def measured(problem: Problem, rows_per_task: tuple[int, ...] = ROWS, seeds: int = SEEDS) -> Row:
    """The correlations of every sketch, number of rows and damping: quartiles over test tasks and seeds."""
    truth = problem.truth()
    report = truth.scores[0].info
    found: list[Row] = []
    runs = list(product(KINDS, rows_per_task, range(seeds)))
    with progress_bar("sketches", len(runs), True) as advance:
        correlations: dict[tuple[str, int, float], list[np.ndarray]] = {}
        for sketch, rows, seed in runs:
            scores = problem.sketch(Fisher(rows, sketch, seed), truth.dampings).scores
            for damping, ours, exact in zip(DAMPINGS, scores, truth.scores, strict=True):
                correlations.setdefault((sketch, rows, damping), []).append(
                    rank_correlations(ours.values, exact.values)
                )
            advance(1, f"{sketch} {rows}")
    for (sketch, rows, damping), values in correlations.items():
        quartiles = np.percentile(np.concatenate(values), QUARTILES).tolist()
        found.append({"sketch": sketch, "rows": rows, "damping": damping, "spearman": quartiles})
    return {
        "problem": problem.name,
        "parameters": report["learner"]["parameters"],
        "rows": rows_per_task,
        "seeds": seeds,
        "train": len(problem.train),
        "test": len(problem.test),
        "median confidence": report["median_confidence"],
        "dampings": truth.dampings,
        "effective rank": [c["effective_rank"] for c in truth.certificates],
        "correlations": found,
    }


def rank_correlations(a: Tensor, b: Tensor) -> np.ndarray:
    """Spearman's, of each test task over the training tasks: [n_test, n_train] twice → [n_test]."""
    return np.array([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])


def markdown(problems: list[Row], picture: str) -> str:
    """The medians as a table for each problem, a line for each sketch and damping."""
    text = [
        f"{sentence(described())}.",
        f"Medians over test tasks and seeds ({problems[0]['seeds']}) of Spearman's correlation with exact Gauss-Newton "
        "scores, by rows per task; damping as a share of the largest eigenvalue. Tasks of 5 ways, 5 shots and 15 "
        "queries a way.",
        f"![Correlation against rows per task, a panel a damping]({picture})",
    ]
    for found in problems:
        text += [
            f"{found['problem']}: {found['parameters']:,} parameters, trained on glyphs; {found['train']} training and "
            f"{found['test']} test tasks, median query confidence {found['median confidence']:.4f}.",
            "\n".join(_table(found)),
        ]
    return "\n\n".join(text) + "\n"


def _table(found: Row) -> Iterator[str]:
    yield "| damping | effective rank | sketch | " + " | ".join(map(str, found["rows"])) + " |"
    yield "|---|---|---|" + "---|" * len(found["rows"])
    for damping, rank in zip(DAMPINGS, found["effective rank"], strict=True):
        for sketch in KINDS:
            medians = (f"{middle:.3f}" for _, (_, middle, _) in _line(found, sketch, damping))
            yield f"| {damping:g} | {'' if rank is None else f'{rank:,.0f}'} | {sketch} | {' | '.join(medians)} |"


def draw(problems: list[Row], path: Path) -> None:
    """A row of panels a problem, a panel a damping, a line a sketch; quartiles over test tasks and seeds shaded."""
    with rc_context(style(LIGHT)):
        figure = Figure(figsize=(8.4, 0.4 + 2.7 * len(problems)), dpi=DPI, layout="constrained")
        grid = figure.subplots(len(problems), len(DAMPINGS), sharex=True, sharey=True, squeeze=False)
        for panels, found in zip(grid, problems, strict=True):
            for axes, damping in zip(panels, DAMPINGS, strict=True):
                _panel(axes, found, damping)
            panels[0].set_ylabel(f"{found['problem']}, {found['train']:,} tasks\nSpearman, with exact scores")
        for axes, damping in zip(grid[0], DAMPINGS, strict=True):
            axes.set_title(f"damping {damping:g} of the largest eigenvalue", fontsize=8)
        for axes in grid[-1]:
            axes.set_xlabel("rows per task")
        grid[0, 0].annotate(
            f"{ASKED:g}",
            (problems[0]["rows"][0], ASKED),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
        )
        lines, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            lines[::-1], names[::-1], frameon=False, loc="outside upper center", ncols=len(names), fontsize=8
        )
        FigureCanvasAgg(figure)
        with replacing(path) as fresh:
            figure.savefig(fresh, format="png")


def _panel(axes: Axes, found: Row, damping: float) -> None:
    for sketch in reversed(KINDS):  # the first on top
        rows, values = zip(*_line(found, sketch, damping), strict=True)
        low, middle, high = np.array(values).T
        axes.fill_between(rows, low, high, color=COLOURS[sketch], alpha=0.12, linewidth=0)
        axes.plot(rows, middle, "o-", color=COLOURS[sketch], markersize=3.5, linewidth=1.3, label=sketch)
    axes.axhline(ASKED, color=LIGHT.ink, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_ylim(0, 1.04)
    axes.set_xscale("log", base=2)
    axes.set_xticks(found["rows"], labels=map(str, found["rows"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=LIGHT.faint, linewidth=0.4, alpha=0.6)


def _line(found: Row, sketch: str, damping: float) -> list[tuple[int, list[float]]]:
    rows = found["correlations"]
    return [(r["rows"], r["spearman"]) for r in rows if (r["sketch"], r["damping"]) == (sketch, damping)]


def _tasks(**given: int) -> tuple[TaskSet, TaskSet]:
    return (
        glyphs(split="train", **given).sample(1024, **SHAPE, seed=0),
        glyphs(split="test", **given).sample(32, **SHAPE, seed=1),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--full", action="store_true", help="ProtoNet Conv4-64, into sketch_full.*")
    other.add_argument("--tasks", action="store_true", help="by training tasks, into sketch_tasks.*")
    given = parser.parse_args()
    if given.tasks:
        name = "sketch_tasks"
        problems = [measured(Problem.protonet(count), ROWS_BY_TASKS, seeds=1) for count in TASKS]
    else:
        name = "sketch_full" if given.full else "sketch"
        made = (Problem.protonet64,) if given.full else (Problem.maml, Problem.protonet)
        problems = [measured(make(), seeds=1 if given.full else SEEDS) for make in made]
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / f"{name}.json", {"machine": described(), "problems": problems})
    draw(problems, given.out / f"{name}.png")
    text = markdown(problems, f"{name}.png")
    write_text(given.out / f"{name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
