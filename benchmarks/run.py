"""All the work, one piece after another, and what is written of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from ..files import write_json, write_text
from ..profiling import peaks
from ..progress import progress_bar
from . import figures, machine, tables
from .cases import CASES
from .dense import DENSE
from .measure import Row, Settings
from .memory import StepsMemory, peak
from .scaling import SWEEPS


class Piece(Protocol):
    """A row of the table."""

    name: str
    in_processes: bool
    """Whether its contestants' peak memory is measured, each in a process of its own."""

    def run(self, settings: Settings) -> Row: ...


def pieces() -> list[Piece]:
    """All there are, in the order of the table."""
    return [*CASES, *DENSE, StepsMemory(), *SWEEPS]


def run(
    out: Path,
    only: str = "",
    seed: int = 0,
    rounds: int = 7,
    seconds: float = 20.0,
    memory: bool = True,
    progress: bool = True,
) -> list[Row]:
    """Run the pieces whose name contains `only`; write `bench.json`, `bench.md` and pictures into `out`.

    `bench.png` has the ratios and `scaling.png` the growth, each if something was run that it shows. All are written
    again after every piece, so that a run that is stopped keeps what it has.
    """
    out.mkdir(parents=True, exist_ok=True)
    reached = peaks("cpu", torch.float32)
    settings = Settings(seed, rounds, seconds, reached)
    described = {"machine": machine.described(), "sgemm": reached.flops, "copy": reached.bytes, "seed": seed}
    chosen = [piece for piece in pieces() if only.lower() in piece.name.lower()]
    rows: list[Row] = []
    with progress_bar("bench", len(chosen), progress) as advance:
        for piece in chosen:
            row = {"work": piece.name, **piece.run(settings)}
            if memory and piece.in_processes:
                row["memory"] = {name: peak(piece.name, name) for name in row["timings"]}
            rows.append(row)
            _write(out, described, rows)
            advance(1, piece.name)
    return rows


def _write(out: Path, described: dict[str, Any], rows: list[Row]) -> None:
    write_json(out / "bench.json", {**described, "rows": rows})
    drawn = {"bench.png": figures.ratios, "scaling.png": figures.scaling}
    pictures = [name for name, draw in drawn.items() if draw(rows, out / name)]
    write_text(out / "bench.md", tables.markdown(described, rows, pictures))
