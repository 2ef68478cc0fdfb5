"""What a compiled kernel says of itself: registers, spills, shared memory, and the accesses in its instructions."""

from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

IN_LOOP = (
    16  # what an access in a loop counts, where one outside it counts 1: it runs for every tile, not once
)


class Binary(NamedTuple):
    """What the instructions say; spills, barriers and atomics as they stand in the text."""

    registers: int
    spills: int  # loads and stores of spilled registers, and bytes of stack
    loaded: dict[
        int, int
    ]  # width in bytes of an access to global memory → how many, IN_LOOP for those in a loop
    stored: dict[int, int]
    mma: str  # the kind of matrix instruction, or "none"
    barriers: int
    atomics: int

    def wide(self, accesses: dict[int, int]) -> float:
        """The share of the bytes that 128-bit accesses carry."""
        total = sum(width * count for width, count in accesses.items())
        return 16 * accesses.get(16, 0) / total if total else 1.0


@cache
def _program(name: str) -> Path:
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


MMA = {"tcgen05": r"\bUT\w*MMA", "wgmma": r"\b[HQI]GMMA\.", "mma": r"\b[HID]MMA\."}


def read_cubin(cubin: bytes) -> Binary:
    """By the cuobjdump and nvdisasm in triton's wheel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _output("cuobjdump", "-res-usage", file.name)
        text = re.sub(r"/\*.*?\*/", "", _output("nvdisasm", "-c", file.name))
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    spills = len(re.findall(r"\b(?:LDL|STL)\b", text)) + used["STACK"] + used["LOCAL"]
    return Binary(
        used["REG"],
        spills,
        _widths(_weighed(text, r"\b(?:LDG|LDGSTS)\.(\S+)")),
        _widths(_weighed(text, r"\bSTG\.(\S+)")),
        next((kind for kind, pattern in MMA.items() if re.search(pattern, text)), "none"),
        len(re.findall(r"\bBAR\.SYNC", text)),
        len(re.findall(r"\b(?:ATOMG?|REDG?)\.(?!SYNC)", text)),
    )


def _output(program: str, *arguments: str) -> str:
    return subprocess.run([_program(program), *arguments], capture_output=True, text=True, check=True).stdout


def _weighed(text: str, access: str) -> list[str]:
    """What `access` captures, IN_LOOP times where it stands between a label and a later branch back to it."""
    lines = text.splitlines()
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"\s*(\.L\S*):", line))}
    loops = [
        (labels[m[1]], i)
        for i, line in enumerate(lines)
        if (m := re.search(r"\bBRA\S* .*?`\((\.L\S*)\)", line)) and labels.get(m[1], i) < i - 1
    ]
    found: list[str] = []
    for i, line in enumerate(lines):
        if m := re.search(access, line):
            found += [m[1]] * (IN_LOOP if any(a < i < b for a, b in loops) else 1)
    return found


def _widths(suffixes: list[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for suffix in suffixes:
        parts = suffix.split(".")
        bits = next((int(p) for p in parts if p in ("256", "128", "64")), None)
        size = (
            bits // 8 if bits else 1 if {"U8", "S8"} & set(parts) else 2 if {"U16", "S16"} & set(parts) else 4
        )
        found[size] = found.get(size, 0) + 1
    return found


def read_amdgcn(text: str) -> Binary:
    """From the assembly and its metadata."""
    given = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", text, re.M)}
    spills = sum(given.get(name, 0) for name in ("vgpr_spill_count", "sgpr_spill_count"))
    return Binary(
        given["vgpr_count"] + given.get("agpr_count", 0),
        spills + given.get("private_segment_fixed_size", 0),
        _dwords(re.findall(r"\b(?:global|buffer|flat)_load_(\w+)", text)),
        _dwords(re.findall(r"\b(?:global|buffer|flat)_store_(\w+)", text)),
        "mfma" if "v_mfma" in text else "none",
        text.count("s_barrier"),
        len(re.findall(r"\b(?:global|buffer|flat)_atomic", text)),
    )


def _dwords(suffixes: list[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for suffix in suffixes:
        times = re.search(r"dwordx(\d)", suffix)
        size = 4 * int(times[1]) if times else 4 if "dword" in suffix else 2 if "short" in suffix else 1
        found[size] = found.get(size, 0) + 1
    return found
