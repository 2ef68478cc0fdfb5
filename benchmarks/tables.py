"""What a run says: tables for the terminal and for bench.md, and sentences under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.table import Table

from .general import CG
from .machine import sentence
from .measure import OURS, Row

COMPARISONS = ("work", "ours", "against", "theirs", "ratio", "at least", "aim", "reached", "peak memory")
ARITHMETIC = ("work", "GFLOP", "GFLOP/s", "of sgemm", "MB", "GB/s", "of copy")
# In the terminal: headings beside "against", and their widths, so that tables align.
SHOWN = {"ours": 7, "theirs": 10, "ratio": 5, "asked": 8, "": 3, "peak memory": 15}
COMPOSED = " *"
COUNTS = {"iterations": "", "iterations_with_matrix": " with G as a matrix"}
PICTURES = {
    "bench.png": "Each baseline's time over that of tlxml_fast, with the ratios asked for",
    "scaling.png": "Time of a Gauss-Newton product against tasks, vectors, inner steps and parameters",
}


def comparisons(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of a table, a line a comparison."""
    for row in rows:
        if "points" in row:
            yield from _scaling(row)
        goals = {g["against"]: g for g in row["goals"]}
        timings, memory = row["timings"], row.get("memory", {})
        ours = timings[OURS]["median"] if timings else None
        others = [name for name in timings if name != OURS]
        for name in [*others, *(n for n in goals if n not in others)]:
            goal = goals.get(name)
            ratio = goal["ratio"] if goal else timings[name]["median"] / ours
            yield (
                row["work"],
                _time(ours) if ours else _memory(row["bytes"]["10 steps"]),
                name,
                _time(timings[name]["median"]) + COMPOSED * bool(timings[name]["composed"])
                if name in timings
                else "",
                _ratio(ratio),
                f"{goal['least']:g}" if goal else "",
                f"{goal['aim']:g}" if goal else "",
                _reached(goal) if goal else "",
                _memory(memory[OURS], memory[name]) if name in memory else "",
            )
        for name, why in row["missing"].items():
            yield (row["work"], "", name, why, *[""] * 5)


def arithmetic(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    """The cells of a table, a line a case: our rates beside the machine's."""
    for row in rows:
        if "arithmetic" in row:
            a = row["arithmetic"]
            yield (
                row["work"],
                _figure(a["flops"] / 1e9),
                _figure(a["flops_per_second"] / 1e9),
                _figure(100 * a["of_sgemm"]) + "%",
                _figure(a["bytes"] / 1e6),
                _figure(a["bytes_per_second"] / 1e9),
                _figure(100 * a["of_copy"]) + "%",
            )


def notes(rows: list[Row]) -> Iterator[str]:
    """Sentences: what was composed and of what, how solutions agree, and what exponents were fitted over."""
    for row in rows:
        for name, timing in row["timings"].items():
            if timing["composed"]:
                yield f"{COMPOSED.strip()} {row['work']}, {name}: not run whole, but composed of {timing['composed']}."
        if "dense" in row:
            yield f"{row['work']}: {_agreement(row['dense'])}"
        if row.get("fits"):
            yield f"{row['work']}: {_exponents(row['fits'])}"


def tables(rows: list[Row]) -> list[Table]:
    """For the terminal: a table a piece, aligned with each other, and one of the arithmetic."""
    made = []
    for work, lines in groupby(comparisons(rows), key=itemgetter(0)):
        table = Table(title=work, title_justify="left", title_style="bold", box=None, expand=True)
        table.show_header = not made
        table.add_column("against", ratio=1)
        for heading, width in SHOWN.items():
            table.add_column(heading, width=width, no_wrap=True)
        for _, ours, against, theirs, ratio, least, aim, reached, memory in lines:
            table.add_row(against, ours, theirs, ratio, f"{least}…{aim}" if least else "", reached, memory)
        made.append(table)
    counted = Table(*ARITHMETIC)
    for line in arithmetic(rows):
        counted.add_row(*line)
    return [*made, counted] if counted.row_count else made


def markdown(described: dict[str, Any], rows: list[Row], pictures: Sequence[str]) -> str:
    """bench.md."""
    sgemm, copy = described["sgemm"] / 1e9, described["copy"] / 1e9
    text = [
        f"{sentence(described['machine'])}.",
        f"In the same run sgemm reached {sgemm:.0f} GFLOP/s, and a copy {copy:.1f} GB/s. Peak memory is ours : theirs, "
        "beyond what was resident before.",
        *(f"![{alt}]({name})" for name, alt in PICTURES.items() if name in pictures),
        _markdown_table(COMPARISONS, comparisons(rows)),
        *(note.replace("*", r"\*") for note in notes(rows)),
    ]
    counted = list(arithmetic(rows))
    if counted:
        text += [
            "The work by its linear maps alone (`tlxml_fast/planning/work.py` says how they are counted), the bytes "
            "that must move whatever computes it, and our rates beside those of sgemm and of a copy:",
            _markdown_table(ARITHMETIC, counted),
        ]
    return "\n\n".join(text) + "\n"


# ---- inside ---------------------------------------------------------------------------------------------------


def _scaling(row: Row) -> Iterator[tuple[str, ...]]:
    """Exponents, and the ratio at the largest value that both reached."""
    fits, points = row["fits"], {name: dict(p) for name, p in row["points"].items()}
    for name in points:
        if name != OURS:
            x = max(points[name])
            ratio = points[name][x] / points[OURS][x]
            ours, theirs = (f"x^{fits[n]['exponent']:.2f}" if n in fits else "" for n in (OURS, name))
            yield row["work"], ours, f"{name}; ratio at {x:,.0f}", theirs, _ratio(ratio), *[""] * 4


def _agreement(dense: Row) -> str:
    differ = ", ".join(f"{error:.0e} ({name})" for name, error in dense["scores_error"].items())
    said = f"λ = {dense['damping']:g}; scores differ from ours by, of the largest, {differ}"
    if "residuals" in dense:
        ours, theirs = dense["residuals"][OURS], dense["residuals"][CG]
        said += (
            f". The largest ‖(G + λI)x − b‖/‖b‖ by curvlinops' float32 product: ours {ours:.1e}, CG's {theirs:.1e}"
            + (", which is as far as float32 takes it" if theirs > ours else "")
        )
        counts = [f"{dense[key]}{how}" for key, how in COUNTS.items() if key in dense]
        said += f". CG's iterations: {', '.join(counts)}"
    return said + "."


def _exponents(fits: Row) -> str:
    each = (
        f"{fit['exponent']:.2f} over {fit['start']:,.0f}…{fit['end']:,.0f}, r² {fit['r2']:.3f} ({name})"
        for name, fit in fits.items()
    )
    return f"seconds grow as x^p, p = {'; '.join(each)}."


def _reached(goal: Row) -> str:
    smaller = goal.get("smaller", False)
    for word, bound in (("aim", goal["aim"]), ("yes", goal["least"])):
        if (goal["ratio"] <= bound) if smaller else (goal["ratio"] >= bound):
            return word
    return "no"


def _figure(value: float) -> str:
    """To two digits, but whole numbers whole."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _time(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _memory(*counts: int) -> str:
    return " : ".join(f"{count / 2**20:,.0f}" for count in counts) + " MiB"


def _markdown_table(headings: Sequence[str], lines: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    rows = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*rows, *("| " + " | ".join(cells) + " |" for cells in lines)])
