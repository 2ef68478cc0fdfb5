"""The tests of the kernels with every launch executed by ttsem: Triton's IR itself, for races between programs,
accesses out of bounds, and results that are not defined.

usage: python tools/gpu/races.py [PYTEST ARGUMENTS]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rung import ROOT, TOOLS, Failure, environment, finish, installed, triton_path

TESTS = [
    *(
        f"tests/ops/test_{name}.py"
        for name in ("softmax_gn", "proto_gn", "layers", "convolution", "stacked_mm")
    ),
    *("-x", "-k", "against_truth and dtype0 and not reference and not im2col- and not winograd-"),
]


def run() -> str:
    command = [sys.executable, "-m", "ttsem.sanitize", str(Path(__file__))]
    variables = environment(
        str(installed("ttsem")),
        *triton_path(),
        str(Path(__file__).parent),
        TLXML_RACES="inside",
        TRITON_CACHE_DIR=str(TOOLS / "triton-cache"),
    )
    arguments = sys.argv[1:] or TESTS
    done = subprocess.run(
        [*command, "--", *arguments], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, end="")
    lines = done.stdout.strip().splitlines()
    passed = [line.strip("= ") for line in lines if " passed" in line or " failed" in line]
    if done.returncode != 0 or not passed or "failed" in passed[-1]:
        raise Failure(f"{(passed or lines or ['no output'])[-1]} (exit status {done.returncode})")
    return passed[-1]


def inside() -> None:
    """Pytest in ttsem's process, where CPU tensors go to the compiled kernels as a device's would."""
    import pytest

    from tlxml_fast.ops import _triton

    _triton.INTERPRETED = True
    sys.path.insert(0, str(ROOT))
    status = pytest.main([*sys.argv[1:], "-p", "no:cacheprovider"])
    if status:
        raise SystemExit(int(status))


if __name__ == "__main__":
    if os.environ.get("TLXML_RACES") == "inside":
        inside()
    else:
        finish(run)
