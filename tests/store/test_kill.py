"""The command, killed at any moment and started again: it finishes, with the scores of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from shlex import split

import pytest
import torch

from tlxml_fast import Scores

TLXML = [sys.executable, "-m", "tlxml_fast"]
TRAIN = split(
    "train --data digits --ways 3 --shots 2 --queries 2 --tasks 160 --eval-tasks 6 --steps 4 --model mlp --hidden 16"
)
INFLUENCE = {
    "fisher": split("--curvature fisher --rows-per-task 8"),
    "cg": split("--inverse cg --preconditioner nystrom --damping 1e-3 --tol 1e-9"),
}
ALWAYS = split("--dtype float64 --test-tasks 24 --memory 1GiB --quiet")
KILLS = {"fisher": 50, "cg": 25}
# The command, keeping every state of an iteration rather than one in half a minute.
KEEPING = (
    "from tlxml_fast.store import unfinished; unfinished.SECONDS = 0; from tlxml_fast.cli import main; main()"
)


def influence(run: Path, out: Path, kind: str = "fisher") -> list[str]:
    """A run of some seconds beyond its start."""
    command = TLXML if kind == "fisher" else [sys.executable, "-c", KEEPING]
    where = ["influence", str(run), "--out", str(out), "--store", str(out / "store")]
    return [*command, *where, *INFLUENCE[kind], *ALWAYS]


@pytest.mark.crash
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", INFLUENCE)
def test_kill_minus_nine(tmp_path, kind):
    subprocess.run([*TLXML, *TRAIN, "--out", tmp_path / "run", "--quiet"], check=True, capture_output=True)
    start = time.perf_counter()
    subprocess.run(
        influence(tmp_path / "run", tmp_path / "undisturbed", kind), check=True, capture_output=True
    )
    takes = time.perf_counter() - start
    wanted = Scores.load(tmp_path / "undisturbed" / "scores.safetensors")
    draw, kills, rounds = random.Random(0), 0, 0
    while kills < KILLS[kind]:
        rounds += 1
        out = tmp_path / f"killed-{rounds}"
        for _ in range(5):  # then it may finish
            process = subprocess.Popen(influence(tmp_path / "run", out, kind), stderr=subprocess.PIPE)
            try:
                process.wait(takes * draw.uniform(0.4, 1.05))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        subprocess.run(influence(tmp_path / "run", out, kind), check=True, capture_output=True)
        found = Scores.load(out / "scores.safetensors")
        assert torch.equal(found.values, wanted.values), f"round {rounds}"
        assert found.info["certificate"] == wanted.info["certificate"]


@pytest.mark.crash
def test_a_killed_process_of_a_job_starts_again(tmp_path):
    subprocess.run([*TLXML, *TRAIN, "--out", tmp_path / "run", "--quiet"], check=True, capture_output=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    values = []
    for name in ("undisturbed", "killed"):
        _, _, *command = influence(tmp_path / "run", tmp_path / name)
        command = [*launcher, "--max-restarts=3", "-m", *command]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
            if name == "killed":
                shards = tmp_path / name / "store" / "shards"
                while not list(shards.glob("*/*.safetensors")):
                    time.sleep(0.01)
                workers = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
                os.kill(int(workers[-1]), signal.SIGKILL)
            assert job.wait(300) == 0
        values.append(Scores.load(tmp_path / name / "scores.safetensors").values)
    assert torch.equal(*values)
