"""The page of an experiment: one self-contained HTML file in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import files, report
from ..report import figures, text
from .outcome import Cell, Drawing, Outcome

HERE = Path(__file__).parent
CSS = Path(report.__file__).parent / "report.css"
TINTS = {"holds": "helpful", "does not hold": "harmful", "undecided": "soft"}


def write_page(path: Path, record: Mapping[str, Any], outcome: Outcome) -> None:
    """Write the page; `record` is what the experiment's JSON file holds."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    html = environment.get_template("page.html.jinja").render(
        css=Markup(CSS.read_text(encoding="utf-8")),
        record=record,
        title=record["experiment"].replace("-", " ").capitalize(),
        findings=outcome.findings,
        tables=outcome.tables,
        plots=[(drawing, _plot(drawing)) for drawing in outcome.drawings],
        tints=TINTS,
        minutes=sum(record["seconds"].values()) / 60,
    )
    files.write_text(path, html)


def _plot(drawing: Drawing) -> figures.Plot:
    return figures.render(
        lambda figure, theme, narrow: drawing.draw(figure, theme),
        drawing.width,
        drawing.height,
        drawing.caption,
    )


def _cell(value: Cell) -> str:
    return "" if value is None else value if isinstance(value, str) else text.number(value)
