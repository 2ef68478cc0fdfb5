"""What an experiment concludes: tables, drawings and findings, all of them made from its raw numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ..errors import TlxError
from ..report.figures import Theme

VERDICTS = ("holds", "does not hold", "undecided")
Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; None is an empty cell."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise TlxError(
                    f"table {self.title!r} has {len(self.columns)} columns and a row of {len(row)}"
                )

    def describe(self) -> dict[str, Any]:
        """JSON."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "note": self.note,
        }


@dataclass(frozen=True)
class Drawing:
    """A figure that `draw` puts on an empty canvas, within the style of the theme.

    name             of its file, in kebab case
    caption          what it shows, in one or two sentences
    width, height    inches
    """

    name: str
    caption: str
    draw: Callable[[Figure, Theme], None]
    width: float = 6.2
    height: float = 3.2


@dataclass(frozen=True)
class Finding:
    """A claim, whether the numbers bear it out, and those numbers in words."""

    claim: str
    verdict: str
    because: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise TlxError(f"a verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}")

    def describe(self) -> dict[str, Any]:
        """JSON."""
        return {"claim": self.claim, "verdict": self.verdict, "because": self.because}


@dataclass(frozen=True)
class Outcome:
    """All that an experiment concludes."""

    tables: Sequence[Table]
    drawings: Sequence[Drawing]
    findings: Sequence[Finding]
