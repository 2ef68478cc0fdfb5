"""The examples run, and are as short as they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FRONT_END = EXAMPLES / "frontend" / "explain.py"


def test_a_front_end_is_short():
    assert len(FRONT_END.read_text().splitlines()) < 60


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_front_end_runs_on(backend):
    done = subprocess.run([sys.executable, FRONT_END, backend], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{backend}: residuals up to")
    assert len(re.findall(r"\([+-]\d+\.\d{3}\)", done.stdout)) == 12
