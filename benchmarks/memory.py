"""Peak memory: each contestant in a process of its own.

Run as a module with the names of a case and of a contestant it prints the resident peak of one run in bytes, less what
was resident before it: modules, tasks, and whatever a run on hardly any work loads and keeps.
"""

from __future__ import annotations

import ctypes
import os
import re
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from ..learners import MAML
from ..models import conv4
from .cases import CASES, Case
from .dense import DENSE
from .measure import OURS, Row, Settings
from .tasks import random_tasks

STATUS = Path("/proc/self/status")

# Of each number of steps.
PROCESSES = 5
STEPS = {
    steps: Case(
        f"product of MAML Conv4-32, {steps} steps",
        lambda steps=steps: MAML(conv4(32, ways=5, seed=0), 0.1, steps),
        lambda seed: random_tasks(1, (1, 28, 28), 5, seed=seed),
        8,
        (),
    )
    for steps in (1, 10)
}


class StepsMemory:
    """How the peak of a product, K=8 on one 5-way 5-shot task, grows with inner steps: a median over processes.

    On one thread: two share the vectors, and whether their peaks coincide is chance, of which more steps give more.
    """

    name = "peak memory, MAML Conv4-32 GN product, 10 steps over 1"
    in_processes = False

    def run(self, settings: Settings) -> Row:
        """Both, and their ratio."""
        rounds = [[peak(case.name, OURS, threads=1) for case in STEPS.values()] for _ in range(PROCESSES)]
        one, ten = map(statistics.median, zip(*rounds, strict=True))
        goal = {"against": "1 step", "ratio": ten / one, "least": 1.2, "aim": 1.05, "smaller": True}
        return {"bytes": {"1 step": one, "10 steps": ten}, "goals": [goal], "timings": {}, "missing": {}}


def peak(case: str, contestant: str, threads: int | None = None) -> int:
    """Bytes that one run takes, measured in a fresh process. Raises RuntimeError with the reason where that fails."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, case, contestant]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads or torch.get_num_threads())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the memory of {contestant} in {case!r} cannot be measured:\n{done.stderr}")
    return int(done.stdout)


def _resident(which: str) -> int:
    return int(re.search(rf"{which}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024


def _measure(case: str, contestant: str) -> int:
    chosen = {c.name: c for c in (*CASES, *DENSE, *STEPS.values())}[case]
    chosen.tiny().alone(contestant)()
    run = chosen.alone(contestant)
    ctypes.CDLL(None).malloc_trim(0)  # what is freed and kept would hide a part of the peak
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    return _resident("VmHWM") - before


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    warnings.simplefilter("ignore")
    print(_measure(*sys.argv[1:]))
