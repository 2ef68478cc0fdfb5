"""Streamed scores: both ends of the ranking of test × training tasks whose gradients are in files of bfloat16.

    python -m tlxml_fast.benchmarks.tiles --out benchmarks/results

The floor is the larger of two times, at the rates of a large sgemm and of a copy that are measured in turns with the
work; of each the fastest run counts, since a machine that others use too is at its own speed only at times. Validated
against float64 before anything is timed; memory is watched from outside a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import write_json, write_text
from ..gemm import library, mm_nt
from ..mapped import TensorFiles
from ..ops.topk import TopK
from ..profiling import Profile
from ..reductions import ranked
from . import machine
from .measure import OURS, Timing, contest
from .tiles_memory import peak

IN_MEMORY, PLAIN = "tlxml_fast, gradients in memory", "torch: mm and topk of each block"
MM, NT, COPY = "sgemm by torch.mm", "sgemm by gemm.mm_nt", "copy"
SIZE, COPIED = 2048, 1 << 28
NAME, LEAST = "gradients", 0.6
# float32 products of d terms, beside float64.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Work:
    """n test directions, N stored gradients of d numbers in bfloat16, in so many files; both ends of k."""

    n: int = 128
    N: int = 1_000_000
    d: int = 1024
    k: int = 100
    files: int = 8

    @property
    def flops(self) -> int:
        """Of the product."""
        return 2 * self.n * self.N * self.d

    @property
    def bytes(self) -> int:
        """That are read."""
        return 2 * self.N * self.d

    def directions(self) -> Tensor:
        """[n, d], float32."""
        return torch.randn(self.n, self.d, generator=torch.Generator().manual_seed(0))

    def write(self, folder: Path) -> list[Path]:
        """Gradients of random numbers."""
        paths = [folder / f"{i}.safetensors" for i in range(self.files)]
        for i, path in enumerate(paths):
            rows = self.N * (i + 1) // self.files - self.N * i // self.files
            block = torch.randn(rows, self.d, generator=torch.Generator().manual_seed(i + 1))
            save_file({NAME: block.bfloat16()}, path)
        return paths

    def __str__(self) -> str:
        return f"the {self.k} most helpful and most harmful of {self.N:,} for {self.n} test tasks, d = {self.d:,}"


def run(out: Path, work: Work, rounds: int = 9) -> dict[str, Any]:
    """Validated, timed, profiled, and watched; `tiles.json` and `tiles.md` in `out`."""
    X = work.directions()
    with tempfile.TemporaryDirectory() as folder:
        paths = work.write(Path(folder))
        stored = TensorFiles(paths, NAME)
        error = validate(X, stored[0], work.k)
        first = stored[0].clone()  # of a window that is larger than any cache
        rest = [first] * (work.N // len(first)) + [first[: work.N % len(first)]]
        timings = contest(
            {
                OURS: lambda: ranked(X, stored, work.k),
                IN_MEMORY: lambda: ranked(X, rest, work.k),
                PLAIN: lambda: plain(X, stored, work.k),
                **rates(),
            },
            dict.fromkeys((OURS, IN_MEMORY, PLAIN), error) | dict.fromkeys((MM, NT, COPY), 0.0),
            rounds,
            seconds=20,
        )
        profile = Profile()
        with profile:
            ranked(X, stored, work.k)
        resident = peak(paths, NAME, work.n)
    found = {
        "machine": machine.described(),
        "work": asdict(work),
        "product": library(X.dtype, "cpu"),
        "error": error,
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        **floors(work, timings),
        "profile": [{"op": row.op, "seconds": row.seconds, "share": row.share} for row in profile.rows()],
        "peak_bytes": resident,
    }
    write_json(out / "tiles.json", found)
    write_text(out / "tiles.md", markdown(found, work))
    return found


def validate(X: Tensor, gradients: Tensor, k: int) -> float:
    """The largest error of the ranked scores, relative to the largest score; ValueError where one is too large.

    The scores that are found are compared with those of their columns in float64, and with the best in float64.
    """
    gradients = gradients[:20_000]
    truth = -(X.double() @ gradients.double().mT)
    ends = ranked(X, [gradients], k)
    error = max(
        float((a.double() - b).abs().max() / truth.abs().max())
        for end, best in ((ends.largest, truth.topk(k).values), (ends.smallest, -(-truth).topk(k).values))
        for a, b in ((end.values, truth.gather(1, end.indices)), (end.values, best))
    )
    if not error <= TOLERANCE:
        raise ValueError(f"ranked scores are wrong by {error:.1e} and are not timed")
    return error


def plain(X: Tensor, blocks: Sequence[Tensor], k: int) -> tuple[TopK, TopK]:
    """As it is mostly written: each block is converted, multiplied and ranked whole."""
    best: list[TopK] = []
    for largest in (False, True):
        worst = -torch.inf if largest else torch.inf
        best.append(TopK(X.new_full((len(X), k), worst), torch.full((len(X), k), -1)))
    first = 0
    for block in blocks:
        scores = -(X @ block.float().mT)
        for end, largest in enumerate((False, True)):
            found = scores.topk(min(k, len(block)), largest=largest)
            values = torch.cat([best[end].values, found.values], 1)
            indices = torch.cat([best[end].indices, found.indices + first], 1)
            order = values.topk(k, largest=largest).indices
            best[end] = TopK(values.gather(1, order), indices.gather(1, order))
        first += len(block)
    return best[0], best[1]


def rates() -> dict[str, Callable[[], object]]:
    """What the floors are made of."""
    a = torch.randn(SIZE, SIZE)
    product = torch.empty_like(a)
    source = torch.zeros(COPIED // 4)
    copy = torch.empty_like(source)
    return {
        MM: lambda: torch.mm(a, a, out=product),
        NT: lambda: mm_nt(a, a),
        COPY: lambda: copy.copy_(source),
    }


def floors(work: Work, timings: dict[str, Timing]) -> dict[str, Any]:
    """Rates, and the share of the larger floor that is reached, with either product."""
    copied = 2 * COPIED / timings[COPY].least
    flops = {name: 2 * SIZE**3 / timings[name].least for name in (MM, NT)}
    floor = {name: max(work.flops / rate, work.bytes / copied) for name, rate in flops.items()}
    shares = {
        name: {of: floor[of] / timings[name].least for of in floor} for name in (OURS, IN_MEMORY, PLAIN)
    }
    return {"flops": flops, "copy": copied, "floor": floor, "share": shares}


def markdown(found: dict[str, Any], work: Work) -> str:
    """The table, and what it says."""
    rate, share, times = found["flops"], found["share"], found["timings"]
    spent = ", ".join(f"{row['op']} {row['share']:.0%}" for row in found["profile"])
    lines = [
        "# Streamed scores",
        "",
        f"{str(work).capitalize()}, stored in bfloat16: {work.flops / 1e9:.0f} GFLOP, {work.bytes / 1e9:.2f} GB.",
        f"{machine.sentence(found['machine'])}.",
        f"Products of float32 by {found['product']}.",
        "",
        f"| contestant | ms, least | median | GFLOP/s | of the floor by torch.mm (≥ {LEAST:.0%}) | by mm_nt |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (OURS, IN_MEMORY, PLAIN):
        least, median = times[name]["least"], times[name]["median"]
        shares = f"{share[name][MM]:.0%} | {share[name][NT]:.0%}"
        lines.append(
            f"| {name} | {1e3 * least:.0f} | {1e3 * median:.0f} | {work.flops / least / 1e9:.0f} | {shares} |"
        )
    lines += [
        "",
        f"In the same turns: sgemm of {SIZE}³ {rate[MM] / 1e9:.0f} GFLOP/s by torch.mm, {rate[NT] / 1e9:.0f} by mm_nt; "
        f"a copy {found['copy'] / 1e9:.0f} GB/s. Floors: {1e3 * found['floor'][MM]:.0f} and "
        f"{1e3 * found['floor'][NT]:.0f} ms.",
        "",
        f"Where the time of one pass goes: {spent}.",
        "",
        f"Largest error beside float64, relative to the largest score: {found['error']:.1e}.",
        f"Resident at most, names and groups of all tasks included: {found['peak_bytes'] / 2**30:.2f} GiB.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--train", type=int, default=Work.N)
    parser.add_argument("--test", type=int, default=Work.n)
    given = parser.parse_args()
    work = Work(n=given.test, N=given.train)
    print(markdown(run(given.out, work, given.rounds), work))


if __name__ == "__main__":
    main()
