"""tlxml-fast doctor."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from .common import console


def doctor() -> None:
    """What is built, which backend will run and why."""
    from ..doctor import report as rows

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for section, what, status in rows():
        table.add_row(section, what, Text(status))
    console.print(table)
