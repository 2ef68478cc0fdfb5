"""tlxml-fast bench."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import TlxError
from .common import Quiet, Seed, console


def bench(
    out: Annotated[Path, typer.Option(help="Where bench.json, bench.md and the pictures go.")] = Path(
        "bench"
    ),
    only: Annotated[
        str,
        typer.Option(
            help="Only what has this in its name: 'K=1', 'gradients', 'dense', 'memory', 'scaling', …"
        ),
    ] = "",
    seed: Seed = 0,
    rounds: Annotated[int, typer.Option(help="Times each contestant runs.")] = 7,
    seconds: Annotated[float, typer.Option(help="None runs again after as long as this.")] = 20.0,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="No peak memory, which takes a process for each contestant.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """The engine beside torch.func, curvlinops and a loop over tasks: validated, then timed in turns."""
    from ..benchmarks.run import pieces, run
    from ..benchmarks.tables import notes, tables

    if not any(only.lower() in piece.name.lower() for piece in pieces()):
        names = "\n".join(piece.name for piece in pieces())
        raise TlxError(f"nothing in the benchmark has {only!r} in its name; there is\n{names}")
    warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own
    rows = run(out, only, seed, rounds, seconds, memory=not no_memory, progress=not quiet)
    for shown in (*tables(rows), *notes(rows)):
        console.print(shown)
    console.print(f"Written to {out}")
