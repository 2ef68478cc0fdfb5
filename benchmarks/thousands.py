"""A thousand tasks on two cores: Conv4-64, Fisher rows and one Woodbury factorisation, timed phase by phase.

    python -m tlxml_fast.benchmarks.thousands --out benchmarks/results

Prediction for two cores at 100 GFLOP/s in convolutions and 170 in large products, 1,024 × 128 tasks of 5 ways, 5 shots
and 15 queries: gradients 1,152 passes forwards and back, rows 8 × 1,024 passes back, the Gram matrix 8,192² × 111,936
flops, its eigendecomposition 9 × 8,192³ in float64, solve and residual 8 × 128 × 8,192 × 111,936.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

from .. import data
from ..curvature import Fisher
from ..errors import InfluenceWarning
from ..files import write_json, write_text
from ..influence import TaskInfluence
from ..learners import ProtoNet
from ..models import conv4
from ..solvers import Relative, Woodbury
from ..training import meta_train
from . import machine

SHAPE = {"ways": 5, "shots": 5, "queries": 15}
TRAINING = {"steps": 200, "batch_size": 2, "lr": 1e-3, "weight_decay": 1e-4}


def run(train: int, test: int, hidden: int, rows: int, memory: str, store: str | None) -> dict[str, Any]:
    """Train a little, then the influence of all training tasks on all test tasks."""
    tasks = data.glyphs(split="train").sample(train, **SHAPE, seed=0)
    held_out = data.glyphs(split="test").sample(test, **SHAPE, seed=1)
    learner = ProtoNet(conv4(hidden, seed=0))
    start = time.perf_counter()
    meta_train(learner, tasks, progress=True, **TRAINING)
    training = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfluenceWarning)
        influence = TaskInfluence(
            learner, Fisher(rows), Woodbury(damping=Relative(5e-4)), memory=memory, store=store, progress=True
        )
        start = time.perf_counter()
        scores = influence.fit(tasks).scores(held_out)
        total = time.perf_counter() - start
        start = time.perf_counter()
        sweep = influence.damping_sweep([Relative(x) for x in (5e-3, 5e-4, 5e-5, 5e-6)])
        swept = time.perf_counter() - start
    stability = sweep.stability().median(-1).values
    return {
        "training tasks": train,
        "test tasks": test,
        "parameters": influence.report["learner"]["parameters"],
        "rows per task": rows,
        "memory": memory,
        "seconds": {
            "training": training,
            **scores.info["seconds"],
            "total": total,
            "sweep of 4 dampings": swept,
        },
        "peak resident GiB": peak_resident() / 2**30,
        "certificate": {k: v for k, v in scores.info["certificate"].items() if k != "residuals"},
        "dampings": sweep.dampings,
        "median rank correlation between dampings": stability.tolist(),
        "machine": machine.described(),
    }


def peak_resident() -> int:
    """The most bytes this process has had in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        f"# {found['training tasks']:,} × {found['test tasks']} tasks, {found['parameters']:,} parameters",
        "",
        f"{machine.sentence(found['machine'])} {found['rows per task']} Fisher rows a task, "
        f"memory limited to {found['memory']}.",
        "",
        "| phase | seconds |",
        "| --- | --- |",
        *(f"| {phase} | {seconds:,.1f} |" for phase, seconds in found["seconds"].items()),
        "",
        f"Peak resident memory {found['peak resident GiB']:.2f} GiB; worst residual "
        f"{found['certificate']['worst_residual']:.1e}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--train", type=int, default=1024)
    parser.add_argument("--test", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--store")
    given = parser.parse_args()
    found = run(given.train, given.test, given.hidden, given.rows, given.memory, given.store)
    write_json(given.out / "thousands.json", found)
    write_text(given.out / "thousands.md", markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
