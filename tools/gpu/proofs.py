"""Proofs by sentryward, on the PTX of kernels at fixed small sizes: barriers that agree in every schedule, and no two
accesses to shared or global memory in conflict without an order.

usage: python tools/gpu/proofs.py [FILE ...]

The verifier is young: what it cannot prove stands in `EXPECTED` with the reason, and any other result fails.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from cards import Compiler
from rung import TOOLS, Failure, environment, finish, installed, triton_path

ARCHITECTURE = "sm_100"
SECONDS = 120
REPLICATED = "the lanes that hold the same part of a sum all write it to the same place in shared memory"

# Kernel → the result that is right all the same, and why. Its first witness must be two writes of one source line to
# shared memory; the search ends there, so that these proofs say less than the others.
EXPECTED = {
    "proto_gn/class_means": ("potential_race", REPLICATED),
    "proto_gn/tangents": ("potential_race", REPLICATED),
}


class Launch(NamedTuple):
    """A kernel at fixed sizes: arguments as for `warmup`, no runtime size 1, which Triton would compile in."""

    name: str
    args: tuple[Any, ...]
    grid: tuple[int, int, int]
    options: dict[str, int]


def launches() -> Iterator[Launch]:
    """The launches to prove. Two programs at least where there is an axis of them."""
    import torch

    f, i64 = torch.float32, torch.int64
    softmax, proto = (import_module(f"tlxml_fast.kernels.{name}") for name in ("softmax_gn", "proto_gn"))

    tile, K, n, C = softmax.TILES[0], 8, 128, 8
    yield Launch(
        "softmax_gn/softmax_gn",
        (f, f, f, K, n, C, tile.classes, tile.rows, softmax.TANGENTS), (1, 1, 2), {"num_warps": tile.warps},
    )  # fmt: skip

    tile, K, S, n, D, C = proto.TILES[0], 2, 16, 32, 32, 8
    blocks, options = tile[:3], {"num_warps": tile.warps, "num_stages": 1}
    yield Launch("proto_gn/class_means", (f, i64, f, f, f, S, D, C, True, *blocks), (1, 2, 1), options)
    yield Launch("proto_gn/tangents", (*[f] * 11, K, S, n, D, C, True, True, *blocks), (2, 1, 1), options)


def prove(launch: Launch, folder: Path) -> dict[str, Any]:
    """What sentryward says of a launch."""
    from sentryward import verify
    from triton.runtime import driver

    driver.set_active(Compiler(ARCHITECTURE))
    file, kernel = launch.name.split("/")
    function = getattr(import_module(f"tlxml_fast.kernels.{file}"), f"_{kernel}")
    compiled = function.warmup(*launch.args, grid=launch.grid, **launch.options)
    ptx = compiled.asm["ptx"]
    entry, parameters = re.search(r"\.entry (\w+)\((.*?)\)", ptx, re.S).groups()
    numbers = re.findall(
        r"\.param \.(u32|u64) (\w+_param_\d+)", parameters
    )  # not `.u64 .ptr`: those are pointers
    runtime = [p.name for p in function.params if not p.is_constexpr]
    given = [x for p, x in zip(function.params, launch.args, strict=True) if p.name in runtime]
    sizes = [x for x in given if isinstance(x, int)]
    if len(sizes) != len(numbers):
        raise Failure(f"{launch.name}: {len(sizes)} sizes for the {len(numbers)} that the PTX takes")
    config = {
        "schema": "spverify.kernel-input/v1",
        "entry": entry,
        "launch": {
            "grid_dim": launch.grid,
            "block_dim": [32 * compiled.metadata.num_warps, 1, 1],
            "cluster_dim": [1, 1, 1],
            "dynamic_shared_bytes": compiled.metadata.shared,
        },
        "arguments": [
            {"parameter": name, "type": kind, "value": value}
            for (kind, name), value in zip(numbers, sizes, strict=True)
        ],
    }
    (folder / "kernel.ptx").write_text(ptx)
    (folder / "input.json").write_text(json.dumps(config))
    return verify(folder / "kernel.ptx", input=folder / "input.json", timeout_seconds=SECONDS)


def replicated(race: dict[str, Any]) -> bool:
    """Whether both accesses are the same store to shared memory."""
    first, second = race["first"], race["second"]
    stores = first["mode"] == second["mode"] == "write"
    return stores and race["region"]["address_space"] == "shared" and first["location"] == second["location"]


def run() -> str:
    proved, excused = 0, 0
    for launch in launches():
        if sys.argv[1:] and launch.name.split("/")[0] not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            report = prove(launch, Path(folder))
        result = report["result"]
        wanted, reason = EXPECTED.get(launch.name, ("race_free", ""))
        print(
            f"{launch.name:<28} {result} in {report['elapsed_seconds']:.0f} s{reason and ': ' + reason}",
            flush=True,
        )
        if result != wanted or not all(map(replicated, report.get("races", []))):
            raise Failure(f"{launch.name}: {result}, not {wanted}: {json.dumps(report['diagnostics'])[:300]}")
        proved, excused = proved + (not reason), excused + bool(reason)
    if not proved:
        raise Failure("nothing was proved")
    return f"{proved} launches proved race-free, {excused} with a result that is explained"


if __name__ == "__main__":
    if os.environ.get("TLXML_PROOFS") != "inside":
        cache = str(TOOLS / "triton-cache")
        paths = environment(
            str(installed("sentryward")), *triton_path(), TLXML_PROOFS="inside", TRITON_CACHE_DIR=cache
        )
        os.execve(sys.executable, [sys.executable, *sys.argv], paths)
    finish(run)
