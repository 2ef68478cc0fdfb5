"""The engine on a CUDA device: every kernel against its floor, products and a whole run beside other tools.

    python -m tlxml_fast.benchmarks.gpu --out benchmarks/results [--only PART] [--seconds 3]

Floors come from the device's own matrix products and copies, measured in the same run, not from a data sheet. Results
are validated in float64 before anything is timed. Every row is printed and written as it is found; one that fails says
so, and the exit status is then 1. `make gpu-bench` runs the tests of all ops on the device first.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendError
from ..files import write_json
from ..kernels import WHERE
from ..kernels.card import Card
from ..learners import MAML, ProtoNet
from ..linearize import linearize
from ..models import conv4
from ..profiling import Peaks
from .cases import CASES, GENERAL, VMAPPED, Case, mlp_learner, vector_tasks
from .cases import images as image_tasks
from .dense import DENSE
from .measure import OURS, Row, Settings, contest, relative_error, vectors

ROUNDS = 20


def replayed(case: Case) -> Case:
    """The same by a CUDA graph, alone."""
    return replace(case, name=f"{case.name}, replayed", against=(), goals=(), of_sgemm=None, graphs=True)


# What a device is for, many tasks at once; and the smallest of `tlxml-fast bench`, where launches are what counts.
PRODUCTS = (
    *CASES[:2],
    replayed(CASES[1]),
    Case("GN product, MAML MLP 34-32-5, 5 steps, 4,096 tasks, K=32", mlp_learner(5),
         partial(vector_tasks, 4096), 32, GENERAL),
    replace(CASES[4], of_sgemm=None),
    replayed(CASES[4]),
    Case("GN product, ProtoNet Conv4-64 28×28, 5-way 5-shot, 64 tasks, K=32", lambda: ProtoNet(conv4(64, seed=0)),
         image_tasks(64, 5), 32, (VMAPPED,)),
    *CASES[5:7],
    Case("GN product, MAML Conv4-32 28×28, 5-way 1-shot, 5 steps, 64 tasks, K=32",
         lambda: MAML(conv4(32, ways=5, seed=0), 0.1, 5), image_tasks(64, 1), 32, ()),
    Case("gradients, MAML MLP 34-32-5, 5 steps, 4,096 tasks", mlp_learner(5), partial(vector_tasks, 4096), 0,
         ("vmap(grad), 256 tasks at once", "vmap(grad), 4,096 tasks at once")),
    Case("gradients, ProtoNet Conv4-16 16×16, 1,024 tasks", lambda: ProtoNet(conv4(16, image_size=16, seed=0)),
         image_tasks(1024, 5, 16), 0, ("vmap(grad), 64 tasks at once", "vmap(grad), 256 tasks at once")),
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One Gauss-Newton product of a ProtoNet with Conv4-64, in one precision: what docs/gpu.md predicts."""

    precision: str
    tasks: int = 256
    vectors: int = 32

    @property
    def name(self) -> str:
        """Of the row."""
        return f"GN block, ProtoNet Conv4-64 28×28, {self.tasks} tasks, K={self.vectors}, {self.precision}"

    def run(self, settings: Settings) -> Row:
        """Seconds, and the error of a few tasks' product against float64's."""
        tasks = image_tasks(self.tasks, 5)(settings.seed)
        error = relative_error(self.product(tasks[:2])(), self.product(tasks[:2], torch.float64)().cpu())
        timing = contest({OURS: self.product(tasks)}, {OURS: error}, 3, settings.seconds)[OURS]
        return {"tasks": self.tasks, "vectors": self.vectors, "timings": {OURS: vars(timing)}}

    def product(self, tasks: Any, dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
        """Ready to run on the device."""
        learner = ProtoNet(conv4(64, seed=0).to("cuda"))
        precision = self.precision if dtype == torch.float32 else "fp32"
        lin = linearize(learner, list(tasks), "triton", dtype, strict=True, precision=precision)
        V = vectors(self.vectors, lin.omega)
        return lambda: lin.gnvp(V)


def main() -> int:
    """All of it; a BackendError where there is no device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    parser.add_argument("--only", default="", metavar="PART", help="rows whose name has this in it")
    parser.add_argument("--seconds", type=float, default=3.0, help="after which a contestant runs no more")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise BackendError("the GPU benchmark needs a CUDA device, and torch sees none")
    torch.backends.cudnn.allow_tf32 = False  # all contestants in fp32, as ours is
    rates = measured_rates()
    settings = Settings(0, ROUNDS, options.seconds, Peaks(rates["fp32"], rates["copy"]), "cuda")
    work: list[tuple[str, Callable[[], Row]]] = [
        *((case.name, partial(case.run, settings)) for case in PRODUCTS),
        *((case.name, partial(case.run, settings)) for case in DENSE[1:]),
        *((block.name, partial(block.run, settings)) for block in map(Block, rates["precisions"])),
        *((name, partial(kernel_row, card, rates)) for name, card in kernels()),
    ]
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rates": rates, "rows": []}
    print(found["device"], rates, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, run in work:
        if options.only.lower() in name.lower():
            found["rows"].append({"work": name, **attempted(run)})
            print(in_words(found["rows"][-1]), flush=True)
            write_json(options.out / "gpu.json", found)
    print(f"Written to {options.out / 'gpu.json'}")
    return int(any("failed" in row for row in found["rows"]))


def attempted(run: Callable[[], Row]) -> Row:
    """The row, or why there is none: the others are wanted all the same."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return run()
    except Exception as error:
        torch.cuda.empty_cache()
        return {"failed": f"{type(error).__name__}: {str(error).strip()}"[:400]}


def measured_rates(device: str = "cuda") -> dict[str, Any]:
    """FLOP/s of large products by what they are made of, and bytes/s of a copy."""
    rates: dict[str, Any] = {"precisions": ("fp32", "tf32x3", "tf32", "bf16")}
    for name, dtype, tensor_cores in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, True),
        ("fp64", torch.float64, True),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tensor_cores
        a = torch.randn(8192, 8192, device=device).to(dtype)
        rates[name] = 2 * 8192**3 / seconds_of(lambda a=a: a @ a)
    torch.backends.cuda.matmul.allow_tf32 = False
    rates["tf32x3"] = rates["tf32"] / 3
    x = torch.randn(1 << 28, device=device)
    y = torch.empty_like(x)
    rates["copy"] = 2 * x.nbytes / seconds_of(lambda: y.copy_(x))
    return rates


def seconds_of(run: Callable[[], object]) -> float:
    """On the device, with a cold second-level cache: the median by events."""
    from triton.testing import do_bench

    return 1e-3 * do_bench(run, warmup=10, rep=50, return_mode="median")


def kernels() -> Iterator[tuple[str, Card]]:
    """Every launch that the cards describe, by name."""
    seen: set[str] = set()
    for file in dict.fromkeys(WHERE.values()):
        for card in getattr(import_module(f"..kernels.{file}", __package__), "cards", list)():
            name = "kernel " + card.name.partition(" _")[0]
            if card.call and name not in seen:
                seen.add(name)
                yield name, card


def kernel_row(card: Card, rates: dict[str, float]) -> Row:
    """Milliseconds of a card's launches, and the share of the floor that they reach."""
    launcher, *given = card.call
    arguments = [filled(x) if isinstance(x, Tensor) and x.is_meta else x for x in given]
    seconds = seconds_of(lambda: launcher(*arguments))
    floor = max(card.bytes / rates["copy"], card.flops / rates[card.unit])
    return {"ms": 1e3 * seconds, "floor_ms": 1e3 * floor, "share": floor / seconds}


def filled(like: Tensor, device: str = "cuda") -> Tensor:
    """Numbers that are not zero, for zeros can be faster; labels of one class."""
    if like.is_floating_point():
        return torch.randn(like.shape, dtype=like.dtype, device=device)
    return torch.zeros(like.shape, dtype=like.dtype, device=device)


def in_words(row: Row) -> str:
    """A row in a line or, of several contestants, in some."""
    if "failed" in row:
        return f"{row['work']}: FAILED {row['failed']}"
    if "share" in row:
        return f"{row['work']}: {row['ms']:.3g} ms, floor {row['floor_ms']:.3g}, {row['share']:.0%}"
    ours = next(iter(row["timings"].values()))["median"]
    lines = [f"{row['work']}:"]
    for name, timing in row["timings"].items():
        lines.append(
            f"    {name}: {1e3 * timing['median']:.4g} ms, {timing['median'] / ours:.3g}×, error {timing['error']:.0e}"
        )
    lines += [f"    {name}: {why}" for name, why in row.get("missing", {}).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
