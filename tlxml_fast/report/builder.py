"""write_report: scores and tasks in, one HTML file out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import files
from ..errors import CheckpointError, TlxError
from ..groups import GroupMatrix, group_matrix, group_table, per_task
from ..scores import Scores, TaskAxis
from ..task import TaskSet
from . import figures, summary, text
from .cards import make_cards, make_gallery
from .images import is_image
from .sections import sections_of

HERE = Path(__file__).parent
OPEN_CARDS = 3


def write_report(
    path: str | os.PathLike[str],
    scores: Scores,
    train_tasks: TaskSet,
    test_tasks: TaskSet,
    run: Mapping[str, Any] | None = None,
    *,
    k: int = 5,
    max_test_tasks: int = 64,
    group_k: int = 10,
    permutations: int = 2000,
    seed: int = 0,
) -> None:
    """Write one self-contained HTML file: no request leaves it, and it is whole or not there.

    scores   per-query scores are averaged over the queries
    train_tasks, test_tasks   those of the scores, in order; CheckpointError names the first that is not
    run      sections beside, or instead of, those of `scores.info`; JSON throughout. Shown in this order where
             present: "data", "learner", "training", "influence", "spectrum", "seconds"; then any other. "warnings",
             a list of sentences, stands at the top; "diagnosis", what `Diagnosis.describe` gives, in a section of its
             own; "created" and "command" in the footer. Tiles are made of
             learner.name, training.accuracy (a share) and training.accuracy_interval (half its 95%
             interval, or both ends), influence.curvature, .inverse and .median_confidence, and
             seconds.total (else the sum).
             spectrum.eigenvalues is plotted, with spectrum.damping (else influence.damping) where a number.
    k        training tasks shown at either end of each card
    max_test_tasks   cards at most; of more test tasks, an even choice over the groups
    group_k, permutations, seed   of the group tables
    """
    if k < 1 or max_test_tasks < 1:
        raise TlxError(f"k = {k} and max_test_tasks = {max_test_tasks}: each is at least one")
    scores = per_task(scores)
    _check_ids("training", scores.train, train_tasks)
    _check_ids("test", scores.test, test_tasks)
    run = {**sections_of(scores.info), **(run or {})}

    rows, columns = _by_group(scores.test), _by_group(scores.train)
    chosen = [
        rows[i] for i in np.linspace(0, len(rows) - 1, min(max_test_tasks, len(rows))).round().astype(int)
    ]
    gallery = make_gallery(make_cards(scores, k, chosen), train_tasks, test_tasks)
    options = {"k": group_k, "permutations": permutations, "seed": seed}
    grouped = len(set(scores.train.groups)) > 1
    table = group_table(scores, **options) if grouped else []
    matrix = group_matrix(scores, **options) if grouped else None
    html = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
            scores=scores,
            larger_is_better=scores.larger_is_better,
            outside_fit=int((~scores.in_fit).sum()),
            run=run,
            diagnosis=run.get("diagnosis"),
            warnings=summary.warnings(run),
            tiles=summary.tiles(run, scores),
            sections=summary.sections(run),
            heat_map=figures.heat_map(scores, rows, columns),
            curves=figures.rank_curves(scores),
            limit=figures.robust_limit(scores.values.numpy()),
            percentile=figures.PERCENTILE,
            table=table,
            matrix=matrix,
            tints=_tints(matrix) if matrix else None,
            table_scale=max((abs(row.mean_influence) for row in table), default=0.0),
            matrix_scale=float(np.abs(matrix.mean_influence).max()) if matrix else 0.0,
            permutations=permutations,
            group_k=min(group_k, len(scores.train)),
            gallery=gallery,
            images=is_image(tuple(test_tasks[0].support_x.shape[1:])),
            open_cards=OPEN_CARDS,
            k=min(k, len(scores.train)),
            version=_version(),
        )
    )
    # a lone surrogate in a file name must not stop the report
    files.write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "percent": text.percent,
        "p_value": text.p_value,
        "signed": text.signed,
        "evidence": text.evidence,
    }
    environment.globals |= {"plural": text.plural, "verdict": text.verdict}
    return environment


def _check_ids(what: str, axis: TaskAxis, tasks: TaskSet) -> None:
    """The tasks are those of the scores: same number, same content, same order."""
    if len(tasks) != len(axis):
        raise CheckpointError(f"the scores are of {len(axis)} {what} tasks and {len(tasks)} were given")
    for position, (expected, task) in enumerate(zip(axis.ids, tasks, strict=True)):
        if task.id != expected:
            raise CheckpointError(
                f"{what} task {position} ({task.label!r}, id {task.id[:8]}) is not the one scored "
                f"({axis.names[position]!r}, id {expected[:8]}): the scores belong to other tasks"
            )


def _by_group(axis: TaskAxis) -> list[int]:
    """Positions sorted by group, and by position within a group."""
    return sorted(range(len(axis)), key=lambda i: axis.groups[i])


def _tints(matrix: GroupMatrix) -> Sequence[Sequence[float]]:
    """How strongly each cell of the matrix is coloured: signed, relative to its largest entry."""
    return (matrix.mean_influence / (np.abs(matrix.mean_influence).max() or 1)).tolist()


def _version() -> str:
    try:
        return version("tlxml_fast")
    except PackageNotFoundError:
        return "(not installed)"
