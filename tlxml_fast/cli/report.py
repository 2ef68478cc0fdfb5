"""tlxml-fast report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runs import REPORT, report_run
from .common import command, console


def report(
    run: Annotated[Path, typer.Argument(help="The directory that influence wrote to.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; RUN/report.html unless given.")] = None,
) -> None:
    """One HTML file: what was run, the heat map, every test task beside what helped and harmed it."""
    path = out or run / REPORT
    report_run(run, path, command())
    console.print(f"The report is {path}", highlight=False)
