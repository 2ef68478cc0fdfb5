"""The limit on memory, watched from outside the process that was given it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlxml_fast import TlxError
from tlxml_fast.memory import available, limited, parse_bytes, parse_limit, require

RUN = """
import sys, warnings
import tlxml_fast as tlx
warnings.simplefilter("ignore")
import torch

y = torch.arange(5)


def one(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(35, 1, 28, 28, generator=g)
    return tlx.Task(x[:10], y.repeat(2), x[10:], y.repeat(5))


tasks, test = tlx.TaskSet.lazy(one, 48), tlx.TaskSet.lazy(lambda i: one(100 + i), 4)
made = tlx.TaskInfluence(
    tlx.ProtoNet(tlx.models.conv4(64, seed=0)),
    tlx.Fisher(48),
    tlx.Woodbury(damping=0.1),
    memory=sys.argv[1],
    store=sys.argv[2],
)
print(made.fit(tasks).scores(test))
"""
LIMIT = "1400MiB"


def peak(process: subprocess.Popen) -> int:
    """The most bytes that it was seen to have in memory."""
    most = 0
    while process.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        except OSError:
            break
        most = max(most, int(found[1]) << 10 if found else 0)
        time.sleep(0.02)
    return most


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_limit_is_kept(tmp_path):
    """The rows alone, 48 × 48 × 111,936 numbers, take 984 MiB, beside 600 MiB of libraries."""
    command = [sys.executable, "-c", RUN, LIMIT, str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        most = peak(process)
        assert process.wait() == 0
    assert most < parse_bytes(LIMIT)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 << 30),
        ("8 GB", 8 << 30),
        ("1.5G", 3 << 29),
        ("512 mib", 512 << 20),
        ("1000", 1000),
        (77, 77),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "8 GiBs", "-1GiB", "0", "nan"])
def test_what_is_no_size(text):
    with pytest.raises(TlxError, match="memory is a size"):
        parse_bytes(text)


def test_a_limit_below_what_libraries_take_is_refused():
    with pytest.raises(TlxError, match=r"at least 1\.0 GiB"):
        parse_limit("100 MiB")


def test_what_cannot_fit_is_refused():
    with limited(1 << 30):
        assert available() < 1 << 30
        with pytest.raises(TlxError, match=r"A matrix needs 4\.0 GiB.*of the 1\.0 GiB allowed"):
            require(4 << 30, "A matrix")
