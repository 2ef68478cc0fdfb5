"""Peak memory of streamed scores, asked of the system by another process.

Run as a module with a number of test tasks, the name of a tensor and files that have it, it ranks and groups the scores
of all their rows, and waits for its input to end.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..mapped import TensorFiles
from ..scores import TaskAxis
from ..streamed import StreamedScores

K = 100


def peak(paths: Sequence[Path], name: str, n: int) -> int:
    """Resident bytes, at most, of a process that ranks and groups n test tasks by all rows of the files."""
    command = [sys.executable, "-m", __name__, str(n), name, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        if child.stdout.readline() != "done\n":
            raise RuntimeError("the pass whose memory is watched has failed")
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.stdin.close()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def axis(side: str, count: int) -> TaskAxis:
    """Tasks with names of their own, in a hundred groups."""
    names = tuple(f"{side}-{i}" for i in range(count))
    return TaskAxis(names, names, tuple(str(i % 100) for i in range(count)))


if __name__ == "__main__":
    stored = TensorFiles(sys.argv[3:], sys.argv[2])
    N, n = sum(map(len, stored)), int(sys.argv[1])
    X, in_fit = torch.randn(n, stored[0].shape[1]), torch.ones(N, dtype=torch.bool)
    scores = StreamedScores(X, stored, axis("test", n), axis("train", N), in_fit)
    scores.ranked(min(K, N))
    scores.group()
    print("done", flush=True)
    sys.stdin.read()
