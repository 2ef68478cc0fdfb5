"""One process against several, one thread each: the phases that go task by task, gradients and Fisher rows.

python -m tlxml_fast.benchmarks.processes --out benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..curvature import Fisher
from ..distributed import joined
from ..errors import InfluenceWarning
from ..files import write_json, write_text
from ..influence import TaskInfluence
from ..learners import ProtoNet
from ..models import conv4
from ..solvers import Woodbury
from . import machine

SHAPE = {"ways": 5, "shots": 5, "queries": 15}
DAMPING = 1e-2


def job(tasks: int, hidden: int, rows: int) -> None:
    """What every process runs; the leading one prints the seconds of the phases, and scores to compare."""
    with joined() as world:
        made = data.glyphs(split="train").sample(tasks, **SHAPE, seed=0)
        held_out = data.glyphs(split="test").sample(4, **SHAPE, seed=1)
        influence = TaskInfluence(ProtoNet(conv4(hidden, seed=0)), Fisher(rows), Woodbury(damping=DAMPING))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfluenceWarning)  # nobody trained the learner
            influence.fit(made[: 2 * world.size])  # imports, first calls
            world.barrier()
            start = time.perf_counter()
            influence.fit(made)
            seconds = influence.report["seconds"]
            scores = influence.scores(held_out)
        if world.leads:
            rows_seconds = influence.report["seconds"]["rows"]
            found = {
                "gradients": seconds["gradients"],
                "rows": rows_seconds,
                "fit": time.perf_counter() - start,
            }
            print(json.dumps({**found, "scores": scores.values.flatten().tolist()}))


def launched(processes: int, arguments: list[str]) -> dict[str, Any]:
    """A job of so many processes, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    module = ["-m", "tlxml_fast.benchmarks.processes", "--job", *arguments]
    done = subprocess.run([*command, *module], capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(processes: int, rounds: int, arguments: list[str]) -> dict[str, Any]:
    """Both in turns, their scores compared; medians."""
    runs = {1: [], processes: []}
    for _ in range(rounds):
        for count, found in runs.items():
            found.append(launched(count, arguments))
    first, other = (torch.tensor(found[0]["scores"], dtype=torch.float64) for found in runs.values())
    difference = float((first - other).abs().max() / first.abs().max())
    seconds = {
        count: {phase: statistics.median(run[phase] for run in found) for phase in ("gradients", "rows")}
        for count, found in runs.items()
    }
    alone, together = (sum(phases.values()) for phases in seconds.values())
    return {
        "processes": processes,
        "seconds": {str(count): phases for count, phases in seconds.items()},
        "speedup": alone / together,
        "scores differ by": difference,
        "machine": machine.described(),
    }


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        f"# {found['processes']} processes against one, one thread each",
        "",
        machine.sentence(found["machine"]) + ".",
        "",
        "| processes | gradients, s | rows, s |",
        "| --- | --- | --- |",
        *(f"| {count} | {s['gradients']:.2f} | {s['rows']:.2f} |" for count, s in found["seconds"].items()),
        "",
        f"Speed-up of these phases {found['speedup']:.2f}; scores differ by {found['scores differ by']:.1e} of them.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job(given.tasks, given.hidden, given.rows)
        return
    arguments = [f"--{name}={getattr(given, name)}" for name in ("tasks", "hidden", "rows")]
    found = compare(given.processes, given.rounds, arguments)
    write_json(given.out / "processes.json", found)
    write_text(given.out / "processes.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
