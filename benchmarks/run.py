"""All cases, one after another: a table, JSON as soon as a case is done, and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ..files import replacing
from ..profiling import machine, peaks
from ..progress import progress_bar
from ..task import TaskSet
from .cases import CASES, Case
from .measure import contest, validate
from .memory import peak_of_product

Row = dict[str, Any]
VALIDATED = 2  # tasks that all contestants are compared on in float64
MEMORY = "peak memory, MAML Conv4-32 GN product, 10 steps over 1"


def run(
    out: Path, only: str = "", seed: int = 0, rounds: int = 7, seconds: float = 20.0, progress: bool = True
) -> list[Row]:
    """Run the cases whose name contains `only`; write `bench.json`, `bench.md` and `bench.png` into `out`.

    The files are written again after every case, so that a run that is stopped keeps what it has.
    """
    out.mkdir(parents=True, exist_ok=True)
    reached = peaks("cpu", torch.float32)
    described = {"machine": machine("cpu"), "sgemm": reached.flops, "copy": reached.bytes, "seed": seed}
    work: list[tuple[str, Callable[[], Row]]] = [
        (case.name, lambda case=case: _case(case, seed, rounds, seconds)) for case in CASES
    ]
    work.append((MEMORY, _memory))
    work = [(name, do) for name, do in work if only.lower() in name.lower()]
    rows: list[Row] = []
    with progress_bar("bench", len(work), progress) as advance:
        for name, do in work:
            rows.append({"work": name, **do()})
            _write(out, described, rows)
            advance(1, name)
    return rows


def _case(case: Case, seed: int, rounds: int, seconds: float) -> Row:
    tasks = case.tasks(seed)
    few = TaskSet(list(tasks)[:VALIDATED])
    errors = validate(case.contestants(few, torch.float64)[0], case.truth(few))
    runs, missing = case.contestants(tasks)
    timings = contest(runs, errors, rounds, seconds)
    ours = timings["tlxml_fast"].median
    row: Row = {
        "tasks": len(tasks),
        "vectors": case.K,
        "timings": {name: asdict(t) for name, t in timings.items()},
        "missing": missing,
        "goals": [],
    }
    for goal in case.goals:
        there = {name: timings[name].median for name in goal.baselines if name in timings}
        if there:
            best = min(there, key=there.get)
            row["goals"].append(
                {"against": best, "ratio": there[best] / ours, "least": goal.least, "aim": goal.aim}
            )
    if case.convolution_flops:
        # measured in the same breath: the clock of a shared machine moves
        rate, sgemm = case.convolution_flops * case.K * len(tasks) / ours, _sgemm()
        row["goals"].append(
            {
                "against": f"sgemm at {sgemm / 1e9:.0f} GFLOP/s",
                "ratio": rate / sgemm,
                "least": 0.45,
                "aim": 0.7,
            }
        )
    return row


def _sgemm() -> float:
    """FLOP/s of a large product of matrices, now."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / contest({"sgemm": lambda: a @ a}, {"sgemm": 0.0}, 5, 10.0)["sgemm"].median


def _memory() -> Row:
    threads = torch.get_num_threads()
    one, ten = (peak_of_product(steps, threads) for steps in (1, 10))
    goal = {"against": "1 step", "ratio": ten / one, "least": 1.2, "aim": 1.05, "smaller": True}
    return {"bytes": {"1 step": one, "10 steps": ten}, "goals": [goal], "timings": {}, "missing": {}}


# ---- what is shown ----------------------------------------------------------------------------------------

HEADINGS = ("work", "ours", "against", "theirs", "ratio", "at least", "aim", "reached")


def lines(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of a table, a line a comparison."""
    for row in rows:
        timings, goals = row["timings"], {g["against"]: g for g in row["goals"]}
        ours = timings["tlxml_fast"]["median"] if timings else None
        others = [name for name in timings if name != "tlxml_fast"]
        for name in [*others, *(n for n in goals if n not in others)]:
            goal = goals.get(name)
            ratio = goal["ratio"] if goal else timings[name]["median"] / ours
            yield (
                row["work"],
                _time(ours) if ours else _bytes(row["bytes"]["10 steps"]),
                name,
                _time(timings[name]["median"]) if name in timings else "",
                f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
                f"{goal['least']:g}" if goal else "",
                f"{goal['aim']:g}" if goal else "",
                _reached(goal) if goal else "",
            )
        for name, why in row["missing"].items():
            yield (row["work"], "", name, why, "", "", "", "")


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    shown = Table(*HEADINGS)
    last = None
    for first, *cells in lines(rows):
        shown.add_row("" if first == last else first, *cells)
        last = first
    return shown


def _reached(goal: Row) -> str:
    smaller = goal.get("smaller", False)
    for word, bound in (("aim", goal["aim"]), ("yes", goal["least"])):
        if (goal["ratio"] <= bound) if smaller else (goal["ratio"] >= bound):
            return word
    return "no"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _write(out: Path, described: dict[str, Any], rows: list[Row]) -> None:
    with replacing(out / "bench.json") as path:
        path.write_text(json.dumps({**described, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    markdown = [" | ".join(("", *HEADINGS, "")).strip(), "|".join(["", *["---"] * len(HEADINGS), ""])]
    markdown += [" | ".join(("", *cells, "")).strip() for cells in lines(rows)]
    with replacing(out / "bench.md") as path:
        path.write_text(
            f"sgemm {described['sgemm'] / 1e9:.0f} GFLOP/s, copy {described['copy'] / 1e9:.1f} GB/s\n\n"
            + "\n".join(markdown)
            + "\n"
        )
