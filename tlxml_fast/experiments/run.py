"""Running an experiment: seed by seed, each kept when it is done, then its conclusions as JSON, figures and a page.

DIR/NAME/seed-S.json   the raw numbers of a seed; a run that was stopped goes on after the last
DIR/NAME.json          all raw numbers, tables and findings
DIR/NAME-FIGURE.png    the figures
DIR/NAME.html          the page
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from .. import files
from ..errors import CheckpointError, TlxError
from ..report.figures import DPI, LIGHT, style
from .base import Experiment, Setup
from .outcome import Drawing, Outcome
from .page import write_page


def run_experiment(
    experiment: Experiment, setup: Setup, seeds: Sequence[int], out: Path, command: str = ""
) -> dict[str, Any]:
    """Every seed's raw numbers, and what they say together; returns what DIR/NAME.json holds.

    Raises CheckpointError where DIR holds numbers of the same experiment with another setup.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise TlxError(f"seeds are distinct numbers of at least 0, one or more, not {list(seeds)}")
    setup.pool("train"), setup.pool("test")  # what is missing is said before long work
    raw = {seed: _of_seed(experiment, setup, seed, out) for seed in seeds}
    outcome = experiment.conclude(setup, {seed: numbers["numbers"] for seed, numbers in raw.items()})
    pictures = [
        draw_png(drawing, out / f"{experiment.name}-{drawing.name}.png") for drawing in outcome.drawings
    ]
    record = _record(experiment, setup, raw, outcome, pictures, command)
    files.write_json(out / f"{experiment.name}.json", record)
    write_page(out / f"{experiment.name}.html", record, outcome)
    return record


def draw_png(drawing: Drawing, path: Path) -> Path:
    """The drawing as a PNG in light colours."""
    with rc_context(style(LIGHT)):
        figure = Figure(figsize=(drawing.width, drawing.height), dpi=DPI, layout="constrained")
        drawing.draw(figure, LIGHT)
        with files.replacing(path) as part:
            figure.savefig(part, format="png")
    return path


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_seed(experiment: Experiment, setup: Setup, seed: int, out: Path) -> dict[str, Any]:
    path = out / experiment.name / f"seed-{seed}.json"
    if path.exists():
        known = files.read_json(path)
        if not isinstance(known, dict) or known.get("setup") != setup.describe():
            made_with = known.get("setup") if isinstance(known, dict) else None
            raise CheckpointError(
                f"{path} holds numbers of another setup, {made_with}, not {setup.describe()}; choose another --out"
            )
        return known
    start = time.perf_counter()
    numbers = finite(experiment.one_seed(setup, seed))
    made = {"setup": setup.describe(), "seconds": time.perf_counter() - start, "numbers": numbers}
    files.write_json(path, made)
    return made


def _record(
    experiment: Experiment,
    setup: Setup,
    raw: Mapping[int, dict[str, Any]],
    outcome: Outcome,
    pictures: Sequence[Path],
    command: str,
) -> dict[str, Any]:
    return finite(
        {
            "experiment": experiment.name,
            "question": experiment.question,
            "setup": setup.describe(),
            "command": command,
            "version": version("tlxml_fast"),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": {seed: numbers["seconds"] for seed, numbers in raw.items()},
            "findings": [finding.describe() for finding in outcome.findings],
            "tables": [table.describe() for table in outcome.tables],
            "drawings": [
                {"file": path.name, "caption": drawing.caption}
                for path, drawing in zip(pictures, outcome.drawings, strict=True)
            ],
            "seeds": {seed: numbers["numbers"] for seed, numbers in raw.items()},
        }
    )
