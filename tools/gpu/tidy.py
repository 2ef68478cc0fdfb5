"""clang-tidy over csrc/cuda, for products of ints that are widened after they overflowed, and the like.

usage: python tools/gpu/tidy.py
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from rung import ROOT, Failure, Skip, environment, finish, installed

BUILD = ROOT / "build" / "gpu-check" / "tidy"
CHECKS = (
    "bugprone-*",
    "-bugprone-easily-swappable-parameters",  # a kernel's sizes are all int64_t
    "-bugprone-macro-parentheses",  # macros of tlx.cuh declare what they are given the name of
    "-bugprone-signed-bitwise",  # places and strides are powers of two
    "clang-analyzer-*",
    "performance-*",
    "-performance-enum-size",  # enums cross the bindings as int64_t
    "cppcoreguidelines-init-variables",
)
CHIP = "sm_80"


def run() -> str:
    if shutil.which("nvcc") is None:
        raise Skip("nvcc, whose headers clang reads, is not installed")
    there = installed("clang-tidy")
    variables = environment(str(there))
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    for source in sources:
        command = [there / "bin" / "clang-tidy", "--quiet", f"--checks=-*,{','.join(CHECKS)}"]
        command += ["--warnings-as-errors=*", f"--header-filter={ROOT / 'csrc'}/.*", source, "--", *clang()]
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        if done.returncode != 0:
            print(done.stdout, done.stderr)
            raise Failure(f"clang-tidy finds fault with {source.name}")
    return f"{len(sources)} sources, no finding"


def clang() -> list[str]:
    """How clang reads a .cu: as the device's code alone."""
    # clang's own headers include one of cuRAND, which a toolkit for compiling alone need not have.
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "curand_mtgp32_kernel.h").touch()
    language = ["-x", "cuda", "--cuda-device-only", f"--cuda-gpu-arch={CHIP}", f"--cuda-path={toolkit()}"]
    return [*language, "-Wno-unknown-cuda-version", "-std=c++17", f"-I{ROOT / 'csrc'}", f"-I{BUILD}"]


def toolkit() -> Path:
    """Where CUDA is installed, as nvcc says it."""
    done = subprocess.run(["nvcc", "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True)
    for line in done.stderr.splitlines():
        if line.startswith("#$ TOP="):
            return Path(line.removeprefix("#$ TOP=")).resolve()
    raise Failure(f"nvcc does not say where CUDA is installed: {done.stderr}")


if __name__ == "__main__":
    finish(run)
