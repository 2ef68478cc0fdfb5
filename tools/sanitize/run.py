"""Test the kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, and fail on any report.

usage: python tools/sanitize/run.py [address] [undefined] [thread]

Each sanitizer's core is built into build/sanitize; the installed one is left alone. Before the tests a bug is planted
that the sanitizer must report, so that one which sees nothing is not taken for one that found nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitize"
INSIDE = Path(__file__).with_name("inside.py")

# Every op at every shape it is tested at; then the engine, which calls them as a user's run does.
TESTS = (
    ["tests/ops"],
    ["tests/test_engine.py", "tests/test_engine_float32.py", "-k", "mlp or learned or apart"],
)
REPORTED = 66  # exit status of a process whose sanitizer reported something


class Sanitizer(NamedTuple):
    runtime: str
    variable: str
    options: str
    planted: str  # what the report of the bug in inside.py says


SANITIZERS = {
    # Python and torch leak at exit, by design.
    "address": Sanitizer(
        "libasan.so",
        "ASAN_OPTIONS",
        "detect_leaks=0:detect_stack_use_after_return=1",
        "heap-buffer-overflow",
    ),
    "undefined": Sanitizer(
        "libubsan.so", "UBSAN_OPTIONS", "print_stacktrace=1", "load of misaligned address"
    ),
    # Only the core is instrumented: of torch, OpenMP and Python too little is seen to judge their accesses.
    "thread": Sanitizer("libtsan.so", "TSAN_OPTIONS", "ignore_noninstrumented_modules=1", "data race"),
}


class Failure(Exception):
    """What failed, in one sentence."""


def tool(name: str) -> str:
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if path is None:
        raise Failure(f"{name} is not installed (pip install pybind11 cmake ninja)")
    return path


def compiler() -> str:
    cxx = os.environ.get("CXX", "g++")
    if shutil.which(cxx) is None:
        raise Failure(
            f"{cxx} is not installed, and the sanitizers are those of g++ (Debian: apt install g++)"
        )
    if "clang" in subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout:
        raise Failure(f"{cxx} is clang, and only the sanitizers of g++ are supported here")
    return cxx


def library(name: str) -> str:
    """The path of a library of the compiler, which prints the bare name of one that it has not."""
    path = subprocess.run(
        [compiler(), f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(path).is_absolute():
        raise Failure(f"{compiler()} has no {name} on this machine: install it, or a g++ that has it")
    return path


def fixed_addresses() -> list[str]:
    """What ThreadSanitizer is run by where it may be: it cannot map its memory if addresses are too random."""
    command = ["setarch", "-R"]
    found = (
        shutil.which(command[0]) and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    )
    return command if found else []


def sanitized(name: str) -> list[str]:
    """The command that runs inside.py with the core of sanitizer `name`."""
    sanitizer = SANITIZERS[name]
    # torch would bring libstdc++ too late for AddressSanitizer to find what throws exceptions.
    preload = [library(sanitizer.runtime), library("libstdc++.so.6")]
    environment = {
        "LD_PRELOAD": ":".join(preload),
        sanitizer.variable: f"{sanitizer.options}:halt_on_error=1:exitcode={REPORTED}",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONUNBUFFERED": "1",
    }
    settings = [f"{key}={value}" for key, value in environment.items()]
    prefix = fixed_addresses() if name == "thread" else []
    return [*prefix, "env", *settings, sys.executable, str(INSIDE), str(BUILD / name), name]


def build(name: str, log: Path) -> None:
    try:
        import pybind11
    except ModuleNotFoundError:
        raise Failure("pybind11 is not installed (pip install pybind11 cmake ninja)") from None
    configure = [
        f"-DTLX_SANITIZE={name}",
        f"-DCMAKE_CXX_COMPILER={compiler()}",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    here = ["-S", str(ROOT), "-B", str(BUILD / name)]
    for command in (["--fresh", "-G", "Ninja", *here, *configure], ["--build", str(BUILD / name)]):
        if logged([tool("cmake"), *command], log) != 0:
            raise Failure("the build failed")


def logged(command: list[str], log: Path) -> int:
    """Run it with its output appended to the log; returns its exit status."""
    with log.open("a") as file:
        print("$", shlex.join(command), file=file, flush=True)
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT).returncode


def last_output(log: Path) -> str:
    """Of the last command, without the lines of tests that passed."""
    lines = log.read_text().rpartition("\n$ ")[2].splitlines()
    return "\n".join(line for line in lines if not line.endswith("%]"))


def prove(name: str, log: Path) -> None:
    status = logged([*sanitized(name), "planted"], log)
    if status != REPORTED or SANITIZERS[name].planted not in last_output(log):
        raise Failure("a planted bug was not reported, so neither would be those of the kernels")


def test(name: str, log: Path) -> None:
    for tests in TESTS:
        status = logged([*sanitized(name), "pytest", *tests], log)
        if status != 0:
            raise Failure("the sanitizer reported a bug" if status == REPORTED else "tests failed")
        print(f"{name}: {tests[0]}: {log.read_text().splitlines()[-1].strip(' =')}", flush=True)


def check(name: str) -> bool:
    """Build, prove and test; says what came of it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    log, start = BUILD / f"{name}.log", time.monotonic()
    log.write_text("")
    try:
        library(SANITIZERS[name].runtime)
        build(name, log)
        print(f"{name}: built in {time.monotonic() - start:.0f} s", flush=True)
        prove(name, log)
        test(name, log)
    except Failure as failure:
        if output := last_output(log):
            print(output, f"(all of it: {log.relative_to(ROOT)})", sep="\n")
        print(f"{name}: FAILED: {failure}", flush=True)
        return False
    print(f"{name}: nothing reported but the planted bug, {time.monotonic() - start:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    names = sys.argv[1:] or list(SANITIZERS)
    if unknown := set(names) - set(SANITIZERS):
        sys.exit(f"no sanitizer {', '.join(sorted(unknown))}; there are {', '.join(SANITIZERS)}")
    results = [check(name) for name in names]  # all of them, also after a failure
    sys.exit(0 if all(results) else 1)
