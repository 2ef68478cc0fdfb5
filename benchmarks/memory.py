"""How peak memory grows with inner steps: each product in a process of its own.

Run as a module with a number of steps it prints the resident peak of one product in bytes, less what was resident
before it: modules, tasks, and a product on a tiny model that loads everything lazily loaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from ..learners import MAML
from ..linearize import linearize
from ..models import conv4
from .measure import vectors
from .tasks import random_tasks

STATUS = Path("/proc/self/status")


def peak_of_product(steps: int, threads: int) -> int:
    """Bytes of one MAML Conv4-32 Gauss-Newton product, K=8, one 5-way 5-shot task, in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _resident(which: str) -> int:
    return int(re.search(rf"{which}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024


def _product(hidden: int, side: int, steps: int) -> None:
    learner = MAML(conv4(hidden, image_size=side, ways=5, seed=0), 0.1, steps)
    lin = linearize(learner, random_tasks(1, (1, side, side), 5), "native", strict=True)
    lin.gnvp(vectors(8, lin.omega))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    _product(2, 16, 1)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    _product(32, 28, int(sys.argv[1]))
    print(_resident("VmHWM") - before)
