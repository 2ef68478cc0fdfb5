"""The tests of the kernels under Triton's interpreter, made strict by tests/strict_interpreter.py.

usage: python tools/gpu/interpreter.py [PYTEST ARGUMENTS]
"""

from __future__ import annotations

import subprocess
import sys

from rung import ROOT, Failure, environment, finish, triton_path

TESTS = ["tests/ops", "tests/kernels", "tests/test_engine_on_a_device.py"]


def run() -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(sys.argv[1:] or TESTS)]
    variables = environment(*triton_path(), TRITON_INTERPRET="1")
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")
    last = (done.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
    if done.returncode != 0 or "passed" not in last:
        raise Failure(f"{last} (exit status {done.returncode})")
    return last


if __name__ == "__main__":
    finish(run)
