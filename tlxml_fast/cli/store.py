"""tlxml-fast store: what a store holds, and whether it is whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..planning.units import bytes_of
from ..report.text import anything, shortened
from ..store import describe, verify
from .common import console

LONGEST = 80
NO_MEMORY = {"memory": "no limit", "memory free on the device": "no device"}

store = typer.Typer(no_args_is_help=True, help="What a store holds, and whether it is whole.")
Directory = Annotated[Path, typer.Argument(help="What --store named.")]


@store.command("verify")
def verify_store(
    directory: Directory,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Read every byte and check it. Exit code 2 if anything is damaged."""
    found = verify(directory, progress=not quiet)
    for finding in found.findings:
        colour = "red" if finding.what == "damaged" else "yellow"
        console.print(Text.assemble((f"{finding.what}: ", colour), str(finding)))
    counts = Counter(finding.what for finding in found.findings)
    rest = ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing is missing"
    verdict = rest if not found.ok else f"nothing is damaged, {rest}"
    console.print(f"{found.files:,} files, {found.bytes / 2**20:,.1f} MiB read: {verdict}", highlight=False)
    if not found.ok:
        raise typer.Exit(2)


@store.command("show")
def show_store(directory: Directory) -> None:
    """What a store was made with, and what it holds."""
    found = describe(directory)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for what, value in {**found["context"], **found["choices"]}.items():
        table.add_row(what, Text(_in_words(what, value)))
    table.add_row("tasks", f"{found['tasks']:,} in {found['shards']:,} shards of {found['shard_size']}")
    for kind, held in found["kinds"].items():
        table.add_row(kind, f"{held['shards']:,} shards, {bytes_of(held['bytes'])}")
    for name, size in found["whole"].items():
        table.add_row(name, bytes_of(size))
    for name, size in found["unfinished"].items():
        table.add_row(name, f"{bytes_of(size)}, under way")
    console.print(table)


def _in_words(what: str, value: object) -> str:
    """A value in a line: sizes in units, hashes and descriptions of modules by their beginnings."""
    if what in NO_MEMORY:
        return NO_MEMORY[what] if value is None else bytes_of(value)
    return shortened(" ".join(anything(value).split()), LONGEST)
