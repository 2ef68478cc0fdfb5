"""What the rungs share: where things are, pinned tools, and how a rung ends.

A rung is a script. It prints what it finds; its last line is what check.py shows in the table; its exit status is 0,
`SKIPPED` where a tool is missing, anything else where the kernels are not as they should be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("TLXML_GPU_TOOLS", ROOT / "build" / "gpu-tools"))
SKIPPED = 77

# What the checks were written against. They are installed into build/gpu-tools, out of the way of the package's own.
PINNED = {"triton": "3.8.0", "ttsem": "0.1.0", "sentryward": "0.1.1", "clang-tidy": "23.1.4"}


class Failure(Exception):
    """What is wrong, in words."""


class Skip(Exception):
    """Why the rung cannot run here."""


def finish(run: Callable[[], str]) -> NoReturn:
    """Run a rung, print its figures or its failure as the last line, and exit."""
    try:
        print(run())
        sys.exit(0)
    except Failure as failure:
        print(failure)
        sys.exit(1)
    except Skip as skip:
        print(skip)
        sys.exit(SKIPPED)


def installed(package: str) -> Path:
    """The directory that holds the pinned version of a tool; installs it there if an index can be reached."""
    version = PINNED[package]
    there = TOOLS / f"{package}-{version}"
    done = there / "installed"
    if not done.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # ttsem declares a newer Python than it needs, and a torch of its own
        options = ["--no-deps", "--ignore-requires-python", "--upgrade", "--target", str(there)]
        got = subprocess.run([*command, *options, f"{package}=={version}"], capture_output=True, text=True)
        if got.returncode != 0:
            reason = (got.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise Skip(f"{package} {version} is not there and cannot be installed: {reason}")
        done.touch()
    return there


def triton_path() -> list[str]:
    """What to put on PYTHONPATH so that the pinned triton is imported: nothing where it is installed already."""
    asked = "import triton; print(triton.__version__)"
    here = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    if here.stdout.strip() == PINNED["triton"]:
        return []
    return [str(installed("triton"))]


def environment(*paths: str, **variables: str) -> dict[str, str]:
    """This process's environment with `paths` in front of PYTHONPATH, and the variables."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = [*paths, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(found), **variables}
