"""Compression: what it costs beside TRAK's `BasicProjector`, and what it does to inner products and ranks.

    python -m tlxml_fast.benchmarks.compression --out benchmarks/results

The contest projects random rows of a Conv4-64 gradient's length; times do not depend on the numbers. Errors and ranks
are those of real gradients, of a Conv4-32 ProtoNet trained on glyphs: a matrix of scores −⟨∇L_i, ∇L_j⟩.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ..compression import SJLT, SRHT, Compression, Rademacher
from ..data import glyphs
from ..files import write_text
from ..learners import ProtoNet
from ..linearize import linearize
from ..models import conv4
from ..training import meta_train
from .machine import described, sentence
from .measure import Row, contest

ROWS, NUMBERS, DIMENSION = 1024, 111_936, 2048  # of the contest
ROUNDS, SECONDS = 7, 20.0
READING = "reading the rows once"
DIMENSIONS = (256, 512, 1024, 2048, 4096, 8192)
TRAIN, TEST, STEPS = 512, 64, 80
TASK = {"ways": 5, "shots": 5, "queries": 5}
STORAGES = (torch.float32, torch.bfloat16)
METHODS: dict[str, Callable[..., Compression]] = {
    "SJLT, 1 nonzero a column": partial(SJLT, nonzeros=1),
    "SJLT, 4 nonzeros a column": partial(SJLT, nonzeros=4),
    "SRHT": SRHT,
    "Rademacher": Rademacher,
}


def main() -> None:
    """Both tables, printed and written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    out = parser.parse_args().out
    console = Console(width=140)
    found = {"machine": described(), "contest": projections(), "errors": list(errors(*gradients()))}
    text = as_markdown(found)
    console.print(text, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "compression.json", json.dumps(found, indent=1) + "\n")
    write_text(out / "compression.md", text)


# ---- the contest --------------------------------------------------------------------------------------


def projections() -> Row:
    """Seconds and inner-product errors of each method and of TRAK's, on the same rows in turns."""
    rows = torch.randn(ROWS, NUMBERS, generator=torch.Generator().manual_seed(0))
    contestants: dict[str, Callable[[], Tensor]] = {
        name: partial(method(DIMENSION).project, rows) for name, method in METHODS.items()
    }
    missing, versions = {}, {}
    try:
        contestants |= trak(rows)
    except ImportError as error:
        missing["TRAK's BasicProjector"] = f"not run: {error} (pip install traker)"
    else:
        versions["traker"] = metadata.version("traker")
    found = {name: inner_product_error(rows, run()) for name, run in contestants.items()}
    for name, error in found.items():
        if not 0.5 < error * math.sqrt(DIMENSION) < 2:  # of rows that are nearly orthogonal it is 1/√d
            raise ValueError(f"{name} has an inner-product error of {error:.1e} and is not timed")
    timings = contest({**contestants, READING: rows.sum}, {**found, READING: 0.0}, ROUNDS, SECONDS)
    return {
        "work": f"{ROWS:,} rows of {NUMBERS:,} float32 numbers to {DIMENSION:,}",
        "timings": {name: vars(timing) for name, timing in timings.items()},
        "missing": missing,
        "versions": versions,
    }


def trak(rows: Tensor) -> dict[str, Callable[[], Tensor]]:
    """TRAK's projector for the CPU, of both kinds; it does not divide by √d. Raises ImportError without it."""
    from trak.projectors import BasicProjector, ProjectionType

    def projector(kind: ProjectionType) -> Callable[[], Tensor]:
        made = BasicProjector(NUMBERS, DIMENSION, 0, kind, torch.device("cpu"))
        return lambda: made.project(rows, model_id=0) / math.sqrt(DIMENSION)

    return {
        "TRAK's BasicProjector, Rademacher": projector(ProjectionType.rademacher),
        "TRAK's BasicProjector, normal": projector(ProjectionType.normal),
    }


def inner_product_error(rows: Tensor, projected: Tensor, count: int = 128) -> float:
    """Root mean square of (⟨Px, Py⟩ − ⟨x, y⟩) / ‖x‖‖y‖ over pairs of the first rows."""
    x, y = rows[:count].double(), projected[:count].double()
    norms = x.norm(dim=1)
    error = (y @ y.mT - x @ x.mT) / norms / norms[:, None]
    return float(error.fill_diagonal_(0).pow(2).sum().div(count * (count - 1)).sqrt())


# ---- errors and ranks ---------------------------------------------------------------------------------


def gradients() -> tuple[Tensor, Tensor]:
    """Test and training tasks' gradients at a ProtoNet that was trained on the latter, [TEST, q], [TRAIN, q]."""
    learner = ProtoNet(conv4(32, seed=0))
    train = glyphs("train").sample(TRAIN, **TASK, seed=0)
    test = glyphs("test").sample(TEST, **TASK, seed=1)
    meta_train(learner, train, steps=STEPS, batch_size=8, progress=False)
    return linearize(learner, test).gradients(), linearize(learner, train).gradients()


def errors(test: Tensor, train: Tensor) -> Iterator[Row]:
    """A row for each method, dimension and storage: the error of inner products, and what it does to ranks."""
    exact = -test.double() @ train.double().mT
    scale = test.double().norm(dim=1)[:, None] * train.double().norm(dim=1)
    for name, method in METHODS.items():
        for dimension in DIMENSIONS:
            for storage in STORAGES:
                compression = method(dimension, storage=storage)
                scores = -compression.store(test).double() @ compression.store(train).double().mT
                rank = torch.stack([spearman(*pair) for pair in zip(scores, exact, strict=True)])
                yield {
                    "method": name,
                    "dimension": dimension,
                    "storage": str(storage).removeprefix("torch."),
                    "error": float(((scores - exact) / scale).pow(2).mean().sqrt()),
                    "spearman_median": float(rank.median()),
                    "spearman_least": float(rank.min()),
                }


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two vectors without ties."""
    ranks = torch.stack([a, b]).argsort(1).argsort(1).double()
    return torch.corrcoef(ranks)[0, 1]


# ---- the tables ---------------------------------------------------------------------------------------


def as_markdown(found: dict[str, Any]) -> str:
    """What compression.md says."""
    parts = [
        "# Compression",
        sentence(found["machine"]) + ".",
        *_contest(found["contest"]),
        *_errors(found["errors"]),
    ]
    return "\n\n".join(parts) + "\n"


def _contest(row: Row) -> Iterator[str]:
    timings = row["timings"]
    theirs = [t["median"] for name, t in timings.items() if name.startswith("TRAK")]
    yield f"## {row['work']}"
    yield table(
        ("", "ms", "least–most", "TRAK's faster one over it", "inner-product error"),
        [
            (
                name,
                f"{1e3 * t['median']:,.0f}",
                f"{1e3 * t['least']:,.0f}–{1e3 * t['most']:,.0f}",
                f"{min(theirs) / t['median']:,.1f}" if theirs and name != READING else "",
                f"{t['error']:.4f}" if name != READING else "",
            )
            for name, t in timings.items()
        ],
    )
    yield (
        "Medians of runs in turns. The error is the root mean square of (⟨Px, Py⟩ − ⟨x, y⟩) / ‖x‖‖y‖ over pairs of "
        f"rows; 1/√{DIMENSION:,} is {DIMENSION**-0.5:.4f}."
        + "".join(f" {name} {version}." for name, version in row["versions"].items())
    )
    yield from (f"{name}: {why}." for name, why in row["missing"].items())


def _errors(rows: Sequence[Row]) -> Iterator[str]:
    by_case: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        by_case.setdefault((row["method"], row["dimension"]), {})[row["storage"]] = row
    yield f"## Gradients of a Conv4-32 ProtoNet (28,320 numbers), {TEST} test × {TRAIN} training tasks"
    yield table(
        (
            "",
            "dimension",
            *(f"{what}, {kind}" for kind in ("float32", "bfloat16") for what in ("error", "Spearman")),
        ),
        [
            (
                name,
                f"{dimension:,}",
                *(
                    cell
                    for kind in ("float32", "bfloat16")
                    for cell in (
                        f"{case[kind]['error']:.4f}",
                        f"{case[kind]['spearman_median']:.4f} ({case[kind]['spearman_least']:.3f})",
                    )
                ),
            )
            for (name, dimension), case in by_case.items()
        ],
    )
    yield (
        "Errors as above, over all pairs. Spearman's correlation of a test task's compressed scores with the exact "
        "ones: the median over test tasks, and the least in brackets."
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows))


if __name__ == "__main__":
    main()
