"""The sources of csrc/cuda run on the CPU, a fiber a thread, against plain C++, also under sanitizers.

usage: python tools/gpu/simt.py [plain] [address] [thread]

tools/gpu/simt/<kernel>.cpp holds a kernel's cases, and simt_host.h what runs them: in several orders of blocks, warps
and lanes; with AddressSanitizer and UndefinedBehaviorSanitizer; and with ThreadSanitizer, for which two accesses that
no barrier orders are a race. The sanitizers must first report planted.cpp's bugs, and the host the misuse there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rung import ROOT, Failure, Skip, finish

SOURCES = ROOT / "tools" / "gpu" / "simt"
BUILD = ROOT / "build" / "gpu-check" / "simt"
COMPILE = ("-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-DTLX_HOST_SIMT")
SANITIZE = ("-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
ENVIRONMENT = {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66", "ASAN_OPTIONS": "detect_leaks=1"}


class Build(NamedTuple):
    """A way to compile cases, the orders they run in, their arguments, and what it must see in planted.cpp."""

    flags: tuple[str, ...]
    orders: tuple[str, ...]
    arguments: tuple[str, ...]
    planted: dict[str, str]  # bug → part of its report


BUILDS = {
    "plain": Build(
        (),
        ("fwd", "rev", "1", "2"),
        (),
        {
            "divergence": "never arrives where others wait",
            "mask": "a warp intrinsic whose mask leaves it out",
            "ended": "waits for a lane that has ended",
            "unwritten": "shared memory was read before it was written",
        },
    ),
    "address": Build(
        ("-fsanitize=address,undefined", *SANITIZE),
        ("fwd", "3"),
        (),
        {"overrun": "heap-buffer-overflow", "shift": "shift exponent"},
    ),
    "thread": Build(
        ("-fsanitize=thread", *SANITIZE),
        ("fwd", "rev", "4"),
        ("2100",),  # so many scores at most: it is slow
        {"race": "data race", "blocks": "data race"},
    ),
}


def run() -> str:
    if shutil.which("g++") is None:
        raise Skip("g++ is not installed")
    BUILD.mkdir(parents=True, exist_ok=True)
    runs = 0
    for name in sys.argv[1:] or BUILDS:
        build = BUILDS[name]
        planted = backend_of(SOURCES / "planted.cpp", name)
        for bug, report in build.planted.items():
            done = executed(planted, name, "fwd", (bug,))
            if done.returncode == 0 or report not in done.stderr:
                raise Failure(f"{name} does not report the planted bug {bug}, so neither would it a kernel's")
        for source in sorted(SOURCES.glob("*.cpp")):
            if source.name == "planted.cpp":
                continue
            program = backend_of(source, name)
            for order in build.orders:
                done = executed(program, name, order, build.arguments)
                if done.returncode != 0:
                    print(done.stdout, done.stderr[:4000])
                    raise Failure(f"{source.stem}, {name}, order {order}: {fault(done)}")
                print(f"{source.stem}: {name}, order {order}: {done.stdout.strip()}")
                runs += 1
    return f"{runs} runs, nothing reported but the planted bugs"


def backend_of(source: Path, name: str) -> Path:
    """The program of a source in one of the builds."""
    program = BUILD / f"{source.stem}-{name}"
    include = ["-I", ROOT / "csrc", "-I", SOURCES]
    command = ["g++", *COMPILE, *BUILDS[name].flags, *include, source, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr)
        raise Failure(f"{source.name} does not compile as {name}")
    return program


def executed(program: Path, name: str, order: str, arguments: tuple[str, ...]) -> subprocess.CompletedProcess:
    """Run a program in an order of its threads."""
    environment = {**os.environ, **ENVIRONMENT, "SIMT_ORDER": order}
    command = [*fixed_addresses(name), program, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    except subprocess.TimeoutExpired:
        raise Failure(f"{program.name} {' '.join(arguments)}, order {order}, does not end") from None


def fault(done: subprocess.CompletedProcess) -> str:
    """The line of a program's output that says what is wrong."""
    lines = (done.stdout + done.stderr).splitlines()
    said = (line for line in lines if line.startswith(("wrong:", "SIMT fault")) or "Sanitizer:" in line)
    return next(said, f"exit status {done.returncode}")


def fixed_addresses(name: str) -> list[str]:
    """What ThreadSanitizer is run by: it cannot map its memory if addresses are too random."""
    if name != "thread" or shutil.which("setarch") is None:
        return []
    usable = subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0
    return ["setarch", "-R"] if usable else []


if __name__ == "__main__":
    finish(run)
