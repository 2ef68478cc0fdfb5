"""What commands share: the console, options that mean the same everywhere, and choices by name."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from ..errors import TlxError

console = Console(markup=False)  # names and paths may hold brackets
T = TypeVar("T")

Out = Annotated[Path, typer.Option(help="The run's directory.")]
Seed = Annotated[int, typer.Option(help="Seeds tasks, initial weights and batches.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def one_of(what: str, name: str, choices: Mapping[str, T]) -> T:
    """The choice of that name; TlxError otherwise."""
    if name not in choices:
        raise TlxError(f"{what} is one of {', '.join(choices)}, not {name!r}")
    return choices[name]


def command() -> str:
    """What was typed."""
    return shlex.join(["tlxml-fast", *sys.argv[1:]])
