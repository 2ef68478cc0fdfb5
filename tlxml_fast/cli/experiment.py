"""tlxml-fast experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ..errors import TlxError
from ..experiments import EXPERIMENTS, Setup, run_experiment
from .common import Quiet, command, console, one_of

STYLES = {"holds": "green", "does not hold": "red", "undecided": "yellow"}


def experiment(
    name: Annotated[str, typer.Argument(help=f"{', '.join(EXPERIMENTS)}; or all.")],
    out: Annotated[Path, typer.Option(help="Where JSON, figures and pages go.")] = Path("runs/experiments"),
    data: Annotated[str, typer.Option(help="glyphs, omniglot or digits.")] = "glyphs",
    data_path: Annotated[str | None, typer.Option(help="Where Omniglot lies.")] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2.")] = "0",
    quick: Annotated[
        bool, typer.Option("--quick", help="Few tasks and small networks: under two minutes.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment on what influence scores are worth, and write what it found.

    A run that was stopped goes on with the seed it was at.
    """
    chosen = list(EXPERIMENTS.values()) if name == "all" else [one_of("the experiment", name, EXPERIMENTS)]
    numbers = _numbers(seeds)
    setup = Setup(data, data_path, quick, not quiet)
    for made in chosen:
        record = run_experiment(made, setup, numbers, out, command())
        console.print(f"\n{made.name}: {made.question}", highlight=False)
        for finding in record["findings"]:
            verdict = Text(f"  {finding['verdict']}: ", STYLES[finding["verdict"]])
            console.print(
                verdict.append(finding["claim"], "default"),
                Text(f"    {finding['because']}", "dim"),
                sep="\n",
            )
        console.print(
            f"The page is {out / made.name}.html\nThe numbers are {out / made.name}.json", highlight=False
        )


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise TlxError(f"--seeds is a list of whole numbers such as 0,1,2, not {text!r}") from None
