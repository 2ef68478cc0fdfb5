"""csrc/cuda compiled with every warning of nvcc and ptxas an error, and its machine code held to limits.

usage: python tools/gpu/nvcc.py

For each chip: no spills, no local memory, no stack; and registers and static shared memory within a kernel's limits,
so that as many blocks as were planned fit on a multiprocessor.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from rung import ROOT, Failure, Skip, finish, triton_path

BUILD = ROOT / "build" / "gpu-check" / "nvcc"
CHIPS = (80, 90, 100)  # A100, H100, B200
STRICT = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror")
PTXAS = ("-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror")


class Limit(NamedTuple):
    """What a kernel may use: registers a thread, and bytes of static shared memory a block."""

    registers: int
    shared: int


# Of 65,536 registers, 64 a thread leave room for four blocks of 256 threads.
LIMITS = {"topk_rows": Limit(64, 64)}
# Bytes of shared memory that the system takes of every block, where cuobjdump counts them.
RESERVED = {80: 0, 90: 1024, 100: 1024}


class Usage(NamedTuple):
    """What ptxas gave a kernel on a chip."""

    chip: int
    kernel: str
    registers: int
    stack: int
    local: int
    shared: int


def run() -> str:
    if shutil.which("nvcc") is None:
        raise Skip("nvcc is not installed")
    reader = cuobjdump()
    BUILD.mkdir(parents=True, exist_ok=True)
    found = []
    for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        for chip in CHIPS:
            cubin = backend_of(source, chip)
            for usage in usages(reader, chip, cubin):
                print(f"sm_{chip} {usage.kernel}: {usage.registers} registers, {usage.shared} bytes shared")
                judge(usage)
                found.append(usage)
    return f"{len(found)} kernels, at most {max(usage.registers for usage in found)} registers, no spills"


def backend_of(source: Path, chip: int) -> Path:
    """The machine code of a source for a chip; a Failure at any warning."""
    cubin = BUILD / f"{source.stem}_{chip}.cubin"
    files = ["-I", ROOT / "csrc", "-cubin", source, "-o", cubin]
    command = ["nvcc", *STRICT, *PTXAS, f"-arch=sm_{chip}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout, done.stderr)
        raise Failure(f"{source.name} does not compile without warnings for sm_{chip}")
    return cubin


def usages(reader: Path, chip: int, cubin: Path) -> list[Usage]:
    """What each kernel of a cubin uses."""
    command = [reader, "-res-usage", cubin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    for name, line in re.findall(r"Function (\S+?):\s*\n\s*(.*)", text):
        used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", line)}
        shared = used["SHARED"] - RESERVED[chip]
        found.append(Usage(chip, name, used["REG"], used["STACK"], used["LOCAL"], shared))
    if not found:
        raise Failure(f"cuobjdump shows no kernel in {cubin.name}: {text}")
    return found


def judge(usage: Usage) -> None:
    """A Failure if a kernel breaks a limit, or has none."""
    where = f"{usage.kernel} on sm_{usage.chip}"
    limit = next((limit for name, limit in LIMITS.items() if name in usage.kernel), None)
    if limit is None:
        raise Failure(f"{where} has no limits in tools/gpu/nvcc.py")
    for what, used, most in (
        ("registers", usage.registers, limit.registers),
        ("bytes of stack", usage.stack, 0),
        ("bytes of local memory", usage.local, 0),
        ("bytes of static shared memory", usage.shared, limit.shared),
    ):
        if used > most:
            raise Failure(f"{where} uses {used} {what}, at most {most} are allowed")


def cuobjdump() -> Path:
    """The tool that reads machine code; triton's wheel brings it."""
    from importlib.util import find_spec

    there = triton_path() or [str(Path(find_spec("triton").origin).parents[1])]
    return Path(there[0]) / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"


if __name__ == "__main__":
    finish(run)
