"""The command line: one file a command.

Exit codes: 0 done; 1 a defect of ours; 2 input that cannot be used, with the reason in one sentence; 130 stopped.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..errors import TlxError
from .bench import bench
from .common import console
from .demo import demo
from .diagnose import diagnose
from .doctor import doctor
from .experiment import experiment
from .influence import influence
from .plan import plan
from .profile import profile
from .report import report
from .store import store
from .train import train

STOPPED = 130  # what typer returns of a Ctrl-C, and shells expect

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(metadata.version("tlxml_fast"), highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Which training tasks made a meta-learned model adapt and predict as it does."""


for _command in (train, influence, diagnose, plan, profile, report, experiment, demo, bench, doctor):
    app.command()(_command)
app.add_typer(store, name="store")


def main() -> None:
    """Run the command line; errors the user can mend are one sentence on standard error."""
    errors = Console(stderr=True, markup=False)
    which = f" (process {os.environ.get('RANK', '?')})" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""

    def say(kind: str, style: str, message: object) -> None:
        errors.print(Text(f"{kind}{which}: ", style), Text(str(message)), sep="")

    warnings.showwarning = lambda message, *_, **__: say("warning", "yellow", message)
    try:
        code = app(standalone_mode=False) or 0
    except (TlxError, OSError) as error:
        say("error", "red", error)
        code = 2
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:  # click's usage errors know how to show themselves
        if not hasattr(error, "show"):
            raise
        error.show()
        code = 2
    if code == STOPPED:
        errors.print("stopped; what was finished is kept")
    sys.exit(code)
