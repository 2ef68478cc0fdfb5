"""The engine on a CUDA device: every kernel against its floor, whole products beside torch.func and curvlinops.

    python -m tlxml_fast.benchmarks.gpu --out benchmarks/results

Floors come from the device's own matrix products and copies, measured in the same run, not from a data sheet. Results
are validated in float64 before anything is timed; `make gpu-bench` runs the tests of all ops on the device first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..errors import BackendError
from ..files import write_text
from ..kernels import WHERE
from ..learners import ProtoNet
from ..models import conv4
from ..profiling import Peaks
from .cases import CASES, PER_VECTOR, VMAPPED, Case, Goal, mlp_learner, vector_tasks
from .cases import images as image_tasks
from .measure import Row, Settings, contest, sgemm

ROUNDS, SECONDS = 20, 10.0

# What a device is for: many tasks at once.
MANY = (
    Case("GN product, MAML MLP 34-32-5, 5 steps, 4,096 tasks, K=32", mlp_learner(5),
         lambda seed: vector_tasks(4096, seed), 32, CASES[0].against, (Goal(CASES[0].against, 6, 12),)),
    Case("GN product, ProtoNet Conv4-64 28×28, 5-way 5-shot, 64 tasks, K=32", lambda: ProtoNet(conv4(64, seed=0)),
         image_tasks(64, 5), 32, (VMAPPED, PER_VECTOR), (Goal((VMAPPED,), 5, 8), Goal((PER_VECTOR,), 2.5, 4))),
)  # fmt: skip


def main() -> None:
    """All of it; a BackendError where there is no device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"))
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        raise BackendError("the GPU benchmark needs a CUDA device, and torch sees none")
    torch.backends.cudnn.allow_tf32 = False  # all contestants in fp32, as ours is
    console = Console(width=140)
    rates = measured_rates()
    kernels = list(kernel_rows(rates))
    console.print(kernel_table(kernels))
    settings = Settings(0, ROUNDS, SECONDS, Peaks(rates["fp32"], rates["copy"]), "cuda")
    products = [product_row(case, settings) for case in (*CASES, *MANY)]
    console.print(product_table(products))
    found = {"device": torch.cuda.get_device_name(), "rates": rates, "kernels": kernels, "products": products}
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "gpu.json", json.dumps(found, indent=1) + "\n")
    console.print(f"Written to {out / 'gpu.json'}")


def measured_rates(device: str = "cuda") -> dict[str, float]:
    """FLOP/s of large products by what they are made of, and bytes/s of a copy."""
    rates = {"fp32": sgemm(device)}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    rates["tf32"] = sgemm(device)
    torch.backends.cuda.matmul.allow_tf32 = before
    rates["tf32x3"] = rates["tf32"] / 3
    for name, dtype in (("bf16", torch.bfloat16), ("fp64", torch.float64)):
        a = torch.randn(2048, 2048, device=device).to(dtype)
        rates[name] = 2 * 2048**3 / _median(lambda a=a: a @ a)
    x = torch.empty(1 << 26, device=device)
    y = torch.empty_like(x)
    rates["copy"] = 2 * x.nbytes / _median(lambda: y.copy_(x))
    return rates


def kernel_rows(rates: dict[str, float], device: str = "cuda") -> Iterator[Row]:
    """Every card's launch: its milliseconds, and the share of its floor that it reaches."""
    for file in dict.fromkeys(WHERE.values()):
        cards = getattr(import_module(f"..kernels.{file}", __package__), "cards", list)()
        seen: set[str] = set()
        for card in cards:
            name = card.name.partition(" _")[0]
            if not card.call or name in seen:
                continue
            seen.add(name)
            launcher, *given = card.call
            arguments = [_filled(x, device) if isinstance(x, Tensor) else x for x in given]
            seconds = _median(lambda launcher=launcher, arguments=arguments: launcher(*arguments))
            floor = max(card.bytes / rates["copy"], card.flops / rates[card.unit])
            yield {"kernel": name, "ms": 1e3 * seconds, "floor_ms": 1e3 * floor, "share": floor / seconds}


def _filled(like: Tensor, device: str) -> Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, dtype=like.dtype, device=device)
    return torch.zeros(like.shape, dtype=like.dtype, device=device)


def product_row(case: Case, settings: Settings) -> Row:
    """A case of `tlxml-fast bench`, on the device; what does not fit it says so."""
    for against in (case.against, case.against[1:], ()):
        try:
            return {"work": case.name, **replace(case, against=against, goals=()).run(settings)}
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            reason = str(error).splitlines()[0]
    return {"work": case.name, "failed": reason}


def _median(run: Any) -> float:
    return contest({"": run}, {"": 0.0}, ROUNDS, SECONDS, warm_ups=3)[""].median


def kernel_table(rows: list[Row]) -> Table:
    """Kernels, and the share of the floor."""
    table = Table(title="Kernels", title_justify="left")
    for heading in ("kernel", "ms", "floor, ms", "of the floor"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    for row in rows:
        table.add_row(row["kernel"], f"{row['ms']:.3g}", f"{row['floor_ms']:.3g}", f"{row['share']:.0%}")
    return table


def product_table(rows: list[Row]) -> Table:
    """Whole products, and the others' times over ours."""
    table = Table(title="Products", title_justify="left")
    for heading in ("work", "by", "ms", "over ours", "error in float64"):
        table.add_column(heading, justify="left" if heading in ("work", "by") else "right")
    for row in rows:
        if "failed" in row:
            table.add_row(row["work"], row["failed"])
            continue
        ours = next(iter(row["timings"].values()))["median"]
        for name, timing in row["timings"].items():
            ratio = timing["median"] / ours
            table.add_row(
                row["work"], name, f"{1e3 * timing['median']:.3g}", f"{ratio:.3g}", f"{timing['error']:.0e}"
            )
    return table


if __name__ == "__main__":
    main()
