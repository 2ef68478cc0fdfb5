"""Prove the GPU kernels on a machine without a GPU: the rungs of `make gpu-check`.

usage: python tools/gpu/check.py [RUNG ...] [--update]

A rung is a file beside this one that also runs alone. The first that fails ends the check; one whose tool cannot be had
is skipped, and the table says so. --update lets `cards` rewrite benchmarks/kernel_cards.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rung import ROOT, SKIPPED


class Rung(NamedTuple):
    """A script and what it finds."""

    file: str
    finds: str


# In the order they run: the cheapest and the likeliest to fail first.
RUNGS = {
    "interpreter": Rung(
        "interpreter.py", "wrong results, masks and indices, races, overflow, unwritten memory"
    ),
    "traffic": Rung("traffic.py", "kernels that move more than they must"),
    "cards": Rung("cards.py", "spills, too much shared memory, lost 128-bit accesses"),
    "ttsem": Rung("races.py", "races and accesses out of bounds in Triton's IR"),
    "sentryward": Rung("proofs.py", "missing barriers and races inside a program, in PTX"),
    "nvcc": Rung("nvcc.py", "warnings, spills and too many registers in CUDA C++"),
    "tidy": Rung("tidy.py", "overflow of int and the like in CUDA C++"),
    "simt": Rung("simt.py", "wrong results, races and accesses out of bounds in CUDA C++"),
    "mutants": Rung("mutants.py", "checks that would not see a bug"),
}


class Outcome(NamedTuple):
    """How a rung ended."""

    rung: str
    status: str
    seconds: float
    line: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "rungs", nargs="*", metavar="RUNG", help=f"of {', '.join(RUNGS)}; all if none is named"
    )
    parser.add_argument("--update", action="store_true", help="rewrite benchmarks/kernel_cards.json")
    options = parser.parse_args()
    for name in options.rungs:
        if name not in RUNGS:
            parser.error(f"there is no rung {name}")
    outcomes: list[Outcome] = []
    for name in options.rungs or RUNGS:
        outcomes.append(climb(name, ["--update"] if options.update and name == "cards" else []))
        if outcomes[-1].status == "FAILED":
            break
    print(table(outcomes, list(options.rungs or RUNGS)))
    return int(any(outcome.status == "FAILED" for outcome in outcomes))


def climb(name: str, arguments: list[str]) -> Outcome:
    """Run a rung, passing its output on, and keep its last line."""
    print(f"\n==== {name}: {RUNGS[name].finds}", flush=True)
    start, line = time.monotonic(), ""
    script = Path(__file__).with_name(RUNGS[name].file)
    with subprocess.Popen(
        [sys.executable, "-u", str(script), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for text in process.stdout:
            print(text, end="", flush=True)
            line = text.strip() or line
    status = {0: "passed", SKIPPED: "skipped"}.get(process.returncode, "FAILED")
    return Outcome(name, status, time.monotonic() - start, line)


def table(outcomes: list[Outcome], asked: list[str]) -> str:
    """One line a rung; those after a failure did not run."""
    lines = [f"\n{'rung':<12} {'':<8} {'seconds':>7}"]
    lines += [f"{o.rung:<12} {o.status:<8} {o.seconds:7.0f}  {o.line}" for o in outcomes]
    lines += [f"{name:<12} not run" for name in asked[len(outcomes) :]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
