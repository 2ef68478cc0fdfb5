"""A diagnosis as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .diagnose import Diagnosis

LOOKS = {
    "good": ("✓", "green"),
    "doubtful": ("~", "yellow"),
    "bad": ("✗", "bold red"),
    "unknown": ("?", "dim"),
}


def rendered(diagnosis: Diagnosis) -> RenderableType:
    """A line a check, what it found, then the verdict; as wide as the terminal is."""
    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    table.add_column("what was found")
    for check in diagnosis.checks:
        sign, style = LOOKS[check.grade]
        table.add_row(check.name, Text(f"{sign} {check.grade}", style), Text(check.verdict))
    readings = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    readings.add_column("grade", no_wrap=True)
    readings.add_column("what can be read from these scores")
    for reading, grade in diagnosis.trust.items():
        sign, style = LOOKS[grade]
        readings.add_row(Text(f"{sign} {grade}", style), Text(reading))
    sign, style = LOOKS[diagnosis.grade]
    verdict = Text.assemble(
        ("Verdict: ", "bold"), (diagnosis.grade, style), ". ", " ".join(diagnosis.verdict)
    )
    return Group(Text(diagnosis.heading), "", table, readings, "", verdict)
