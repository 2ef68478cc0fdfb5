"""Several processes compute what one does: to rounding for any number of them, to the bit for the same number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from job import INVERSES, agree, run

JOB = Path(__file__).with_name("job.py")


def launched(processes: int, kinds: str, out: Path, count: int = 11) -> dict:
    """What a job of so many processes found."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(JOB), kinds, str(out), str(count)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("processes", "count"),
    [(2, 11), pytest.param(3, 11, marks=pytest.mark.slow), pytest.param(3, 1, marks=pytest.mark.slow)],
)
def test_several_processes_agree_with_one(processes, count, tmp_path):
    """Of a single task, two have none."""
    found = launched(processes, ",".join(INVERSES), tmp_path / "found.json", count)
    for kind in INVERSES:
        values, meta = found[kind]
        agree(kind, torch.tensor(values, dtype=torch.float64), meta, run(kind, count))


@pytest.mark.slow
def test_the_same_number_of_processes_gives_the_same_bits(tmp_path):
    first, again = (launched(2, "woodbury,cg", tmp_path / f"{i}.json") for i in range(2))
    assert first == again
