"""The mutation gate: each bug planted in a copy of the kernels must make the rung fail that is said to catch it.

usage: python tools/gpu/mutants.py [FILE ...]

FILE names files of tools/gpu/mutants/. A mutant is a text that occurs once in a file of the tree, what replaces it, and
the rung with its arguments. A rung must first pass, with these arguments, on the tree as it is. That a bug changes
nothing but the answer is left to the bug: text that no longer compiles as Python is refused.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from rung import ROOT, SKIPPED, TOOLS, Failure, Skip, environment, finish

LISTS = Path(__file__).with_name("mutants")
COPIES = ROOT / "build" / "gpu-mutants"
TREE = ("kernels", "tlxml_fast", "benchmarks", "tests", "tools", "csrc", "pyproject.toml")
CLASSES = ("mask", "index", "stride", "accumulation", "barrier", "precision")


class Mutant(NamedTuple):
    """A planted bug and who must see it."""

    name: str
    kind: str
    file: str
    find: str
    replace: str
    rung: str
    arguments: tuple[str, ...]


def read(path: Path) -> list[Mutant]:
    try:
        import tomllib
    except ModuleNotFoundError:
        raise Skip("the lists of mutants are TOML, which Python reads from 3.11 on") from None
    rows = tomllib.loads(path.read_text())["mutant"]
    mutants = [
        Mutant(
            row["name"], row["class"], row["file"], row["find"], row["replace"], row["rung"],
            tuple(row.get("arguments", ())),
        )
        for row in rows
    ]  # fmt: skip
    for m in mutants:
        if m.kind not in CLASSES:
            raise Failure(f"{path.name}: {m.name} is of no class known: {m.kind}")
    return mutants


def copy(number: int) -> Path:
    """A tree of its own to plant bugs in; tlxml_fast.kernels lies inside tlxml_fast, where an import looks first."""
    there = COPIES / f"{os.getpid()}-{number}"
    there.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "results", "*.pyc")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, there / name, ignore=ignore)
        else:
            shutil.copy(source, there / name)
    (there / "tlxml_fast" / "kernels").symlink_to(there / "kernels")
    return there


def climb(tree: Path, rung: str, arguments: tuple[str, ...]) -> tuple[int, str]:
    """The exit status of a rung in a tree, and its last line."""
    command = [sys.executable, str(tree / "tools" / "gpu" / RUNG_FILES[rung]), *arguments]
    variables = environment(str(tree), TLXML_GPU_TOOLS=str(TOOLS), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(
        command, cwd=tree, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, (done.stdout.strip().splitlines() or [""])[-1]


def plant(tree: Path, mutant: Mutant) -> str:
    """Write the bug; the text that was there."""
    path = tree / mutant.file
    text = path.read_text()
    if (count := text.count(mutant.find)) != 1:
        raise Failure(f"{mutant.name}: its text occurs {count} times in {mutant.file}, not once")
    bad = text.replace(mutant.find, mutant.replace)
    if path.suffix == ".py":
        ast.parse(bad)
    path.write_text(bad)
    return text


def run() -> str:
    try:
        return gate()
    finally:
        for there in COPIES.glob(f"{os.getpid()}-*"):
            shutil.rmtree(there)


def gate() -> str:
    """Plant every mutant, two at a time."""
    start = time.monotonic()
    chosen = sys.argv[1:] or sorted(path.stem for path in LISTS.glob("*.toml"))
    mutants = [mutant for name in chosen for mutant in read(LISTS / f"{name}.toml")]
    trees: SimpleQueue[Path] = SimpleQueue()
    workers = max(1, min(2, os.cpu_count() or 1))
    for number in range(workers):
        trees.put(copy(number))

    def as_it_is(job: tuple[str, tuple[str, ...]]) -> tuple[int, str]:
        tree = trees.get()
        try:
            return climb(tree, *job)
        finally:
            trees.put(tree)

    def with_bug(mutant: Mutant) -> tuple[int, str]:
        tree = trees.get()
        text = plant(tree, mutant)
        try:
            return climb(tree, mutant.rung, mutant.arguments)
        finally:
            (tree / mutant.file).write_text(text)
            trees.put(tree)

    with ThreadPoolExecutor(workers) as pool:
        jobs = list(dict.fromkeys((m.rung, m.arguments) for m in mutants))
        skipped = set()
        for job, (status, line) in zip(jobs, pool.map(as_it_is, jobs), strict=True):
            if status == SKIPPED:
                skipped.add(job)
                print(f"skipped: {job[0]} {' '.join(job[1])}: {line}", flush=True)
            elif status != 0:
                raise Failure(f"without a bug, {job[0]} {' '.join(job[1])} fails: {line}")
        mutants = [m for m in mutants if (m.rung, m.arguments) not in skipped]
        survived = list(report(mutants, pool.map(with_bug, mutants)))
    if survived:
        raise Failure(f"{len(survived)} of {len(mutants)} mutants survived: {', '.join(survived)}")
    if not mutants:
        raise Skip("no rung that could catch a mutant can run here")
    without = f", {len(skipped)} rungs skipped" if skipped else ""
    return f"{len(mutants)} mutants caught in {time.monotonic() - start:.0f} s{without}"


def report(mutants: list[Mutant], outcomes: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Print each outcome as it comes; the names of those that survived."""
    for mutant, (status, line) in zip(mutants, outcomes, strict=True):
        caught = status not in (0, SKIPPED)
        verdict = f"caught by {mutant.rung}" if caught else "SURVIVED"
        print(f"{mutant.kind:<13} {mutant.name}: {verdict}: {line[:140]}", flush=True)
        if not caught:
            yield mutant.name


if __name__ == "__main__":
    from check import RUNGS

    RUNG_FILES = {name: rung.file for name, rung in RUNGS.items()}
    finish(run)
