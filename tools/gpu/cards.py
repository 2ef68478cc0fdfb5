"""A card for every kernel, in every configuration that a launcher may choose, on every architecture.

It is compiled as a launch would compile it, without a device; read from the machine code; and held against limits and
against the committed cards.

usage: python tools/gpu/cards.py [FILE ...] [--update] [--json PATH]

FILE names files of kernels/. Floors are the data sheets' bandwidth and peaks: lower bounds, never measurements.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from binary import Binary, read_amdgcn, read_cubin
from chips import CHIPS, occupancy
from rung import ROOT, TOOLS, Failure, environment, finish, triton_path

COMMITTED = ROOT / "benchmarks" / "kernel_cards.json"
WIDE = 0.9  # of the bytes that a kernel bound by memory moves, in accesses of 128 bits
LAUNCH_US = 5.0  # below this floor the launch costs more than the memory


class Compiler:
    """The driver of a device that is not there: enough of one for kernels to be compiled, and nothing launched."""

    def __init__(self, architecture: str) -> None:
        from triton.backends.compiler import GPUTarget

        if architecture.startswith("sm_"):
            self.target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
        else:
            self.target = GPUTarget("hip", architecture, 64)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target.arch)

    def get_current_stream(self, device: Any = None) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")


def files() -> list[str]:
    """The files of kernels/ that have cards."""
    found = (path for path in (ROOT / "kernels").glob("*.py") if "def cards()" in path.read_text())
    return sorted(path.stem for path in found)


def draw(file: str, index: int, architecture: str) -> dict[str, Any]:
    """The card `index` of a file's, compiled for an architecture."""
    from triton.runtime import driver

    driver.set_active(Compiler(architecture))
    spec = import_module(f"tlxml_fast.kernels.{file}").cards()[index]
    card: dict[str, Any] = {"kernel": spec.name, "architecture": architecture}
    try:
        compiled = spec.fn.warmup(*spec.args, grid=spec.grid, **spec.options)
    except Exception as error:
        return {**card, "error": f"{type(error).__name__}: {error}"[:300]}
    warps, shared = compiled.metadata.num_warps, compiled.metadata.shared
    nvidia = architecture.startswith("sm_")
    binary = read_cubin(compiled.asm["cubin"]) if nvidia else read_amdgcn(compiled.asm["amdgcn"])
    chip = CHIPS[architecture]
    fit = occupancy(chip, binary.registers, warps, shared, 32 if nvidia else 64)
    memory, work = spec.bytes / chip.bandwidth, spec.flops / chip.peak(spec.unit)
    programs = math.prod(spec.grid)
    return {
        **card,
        "registers": binary.registers,
        "spills": binary.spills,
        "shared_memory": shared,
        "warps": warps,
        "blocks_per_unit": fit.blocks,
        "occupancy": round(fit.share, 3),
        "occupancy_limit": fit.limit,
        "wide_loads": round(binary.wide(binary.loaded), 3),
        "wide_stores": round(binary.wide(binary.stored), 3),
        "mma": binary.mma,
        "barriers": binary.barriers,
        "flops": spec.flops,
        "bytes": spec.bytes,
        "bound": "memory" if memory > work else spec.unit,
        "floor_us": float(f"{1e6 * max(memory, work):.3g}"),
        "programs": programs,
        "waves": round(programs / chip.units / max(fit.blocks, 1), 2),
        "wrong": wrong(
            binary,
            shared,
            fit.blocks,
            architecture,
            nvidia and spec.padded and memory > max(work, 1e-6 * LAUNCH_US),
            spec.may_spill,
        ),
    }


def wrong(
    binary: Binary, shared: int, blocks: int, architecture: str, by_memory: bool, may_spill: int
) -> list[str]:
    """What the machine code may not be like."""
    found = []
    if binary.spills > may_spill and architecture.startswith("sm_"):
        found.append(f"{binary.spills} spills")
    if binary.atomics:
        found.append(f"{binary.atomics} atomics: the order of a sum would depend on the schedule")
    if shared > CHIPS[architecture].shared_of_block:
        found.append(f"{shared} bytes of shared memory, of {CHIPS[architecture].shared_of_block}")
    elif blocks < 1:
        found.append("no block fits on a multiprocessor")
    if by_memory and (share := binary.wide(_both(binary))) < WIDE:
        found.append(f"{share:.0%} of the bytes it moves in 128-bit accesses")
    return found


def _both(binary: Binary) -> dict[int, int]:
    """Loads and stores: what a sum writes is little beside what it reads."""
    widths = {*binary.loaded, *binary.stored}
    return {width: binary.loaded.get(width, 0) + binary.stored.get(width, 0) for width in widths}


def line(card: dict[str, Any]) -> str:
    name = f"{card['kernel']:<52} {card['architecture']:<7}"
    if "error" in card:
        return f"{name} ERROR {card['error']}"
    text = (
        f"{name} {card['registers']:>3} registers {card['shared_memory']:>6} B shared, "
        f"{card['blocks_per_unit']:>2} blocks {card['occupancy']:>4.0%} ({card['occupancy_limit']}), "
        f"{card['mma']}, 128-bit {card['wide_loads']:.0%} {card['wide_stores']:.0%}, "
        f"{card['bound']} {card['floor_us']} us"
    )
    return text + "".join(f"  !! {what}" for what in card["wrong"])


def compare(cards: list[dict[str, Any]], committed: list[dict[str, Any]]) -> list[str]:
    """Where these cards are not the committed ones."""

    def key(card: dict[str, Any]) -> tuple[str, str]:
        return card["kernel"], card["architecture"]

    new, old = {key(c): c for c in cards}, {key(c): c for c in committed}
    found = [f"{' '.join(k)}: no such card is committed" for k in new if k not in old]
    found += [f"{' '.join(k)}: committed, and there no more" for k in old if k not in new]
    for k in new.keys() & old.keys():
        changed = [f"{f} {old[k].get(f)} → {v}" for f, v in new[k].items() if old[k].get(f) != v]
        if changed:
            found.append(f"{' '.join(k)}: {', '.join(changed)}")
    return sorted(found)


def run() -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write these cards besides")
    options = parser.parse_args()
    chosen = options.files or files()
    jobs = [
        (file, i, architecture)
        for file in chosen
        for i, spec in enumerate(import_module(f"tlxml_fast.kernels.{file}").cards())
        for architecture in CHIPS
        if architecture.startswith("sm_") or spec.unit != "tf32x3"  # which Triton has for NVIDIA only
    ]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        cards = []
        for card in pool.map(draw, *zip(*jobs, strict=True), chunksize=4):
            print(line(card), flush=True)
            cards.append(card)
    if options.json:
        options.json.write_text(text(cards))
    bad = [card for card in cards if "error" in card or card["wrong"]]
    if bad:
        raise Failure(
            f"{len(bad)} of {len(cards)} cards are not as they should be; the first: {line(bad[0])}"
        )
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else []
    if options.update:
        kept = [c for c in committed if c["kernel"].split("/")[0] in set(files()) - set(chosen)]
        COMMITTED.write_text(text(sorted([*kept, *cards], key=_order)))
        return f"{len(cards)} cards, written to {COMMITTED.relative_to(ROOT)}"
    here = [c for c in committed if not options.files or c["kernel"].split("/")[0] in chosen]
    if differences := compare(cards, here):
        print(*differences, sep="\n")
        raise Failure(f"{len(differences)} cards are not the committed ones (--update, if they are better)")
    return f"{len(cards)} cards: no spills but those allowed, all fit, as committed"


def text(cards: list[dict[str, Any]]) -> str:
    """JSON with a card a line, for diffs to be read."""
    return "[\n" + ",\n".join(map(json.dumps, cards)) + "\n]\n"


def _order(card: dict[str, Any]) -> tuple[str, str]:
    return card["kernel"], card["architecture"]


if __name__ == "__main__":
    if os.environ.get("TLXML_CARDS") != "compile":  # again, with the pinned triton, and not interpreted
        variables = environment(
            *triton_path(), TLXML_CARDS="compile", TRITON_CACHE_DIR=str(TOOLS / "triton-cache")
        )
        os.execve(sys.executable, [sys.executable, *sys.argv], variables)
    finish(run)
