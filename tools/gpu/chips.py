"""The chips that cards are drawn for: their limits, and their peaks as the data sheets give them, dense."""

from __future__ import annotations

import math
from typing import NamedTuple


class Chip(NamedTuple):
    """Limits a multiprocessor or compute unit; then the whole chip. Sizes in bytes, peaks a second."""

    name: str
    registers: int  # 32-bit, of all threads
    warps: int
    blocks: int
    shared: int
    shared_of_block: int
    units: int
    bandwidth: float
    fp32: float
    fp64: float
    tf32: float
    bf16: float

    def peak(self, unit: str) -> float:
        """Flops a second; tf32x3 makes three products of one."""
        return self.tf32 / 3 if unit == "tf32x3" else getattr(self, unit)


# Peaks of fp32 and fp64 are those outside tensor cores: products of input_precision="ieee" run there in fp32.
CHIPS = {
    "sm_80": Chip(
        "A100 SXM 80 GB", 65536, 64, 32, 167936, 166912, 108,
        2.039e12, fp32=19.5e12, fp64=9.7e12, tf32=156e12, bf16=312e12,
    ),
    "sm_90": Chip(
        "H100 SXM", 65536, 64, 32, 233472, 232448, 132,
        3.35e12, fp32=67e12, fp64=34e12, tf32=494.7e12, bf16=989.4e12,
    ),
    "sm_100": Chip(
        "B200", 65536, 64, 32, 233472, 232448, 148,
        8.0e12, fp32=75e12, fp64=37e12, tf32=1125e12, bf16=2250e12,
    ),
    "gfx942": Chip(
        "MI300X", 4 * 64 * 512, 32, 32, 65536, 65536, 304,
        5.3e12, fp32=163.4e12, fp64=81.7e12, tf32=653.7e12, bf16=1307.4e12,
    ),
}  # fmt: skip


class Occupancy(NamedTuple):
    """Blocks a multiprocessor, the share of its warps they fill, and what allows no more."""

    blocks: int
    share: float
    limit: str


def occupancy(chip: Chip, registers: int, warps: int, shared: int, warp_size: int = 32) -> Occupancy:
    """How many blocks run at once on a multiprocessor."""
    if warp_size == 64:  # registers are given out by eights, to each of four SIMDs
        by_registers = 4 * min(8, 512 // _up(max(registers, 1), 8)) // warps
        by_shared = chip.shared // shared if shared else chip.blocks
    else:  # by 256 a warp, warps by fours; each block has 1 KiB of shared memory besides its own
        by_registers = chip.registers // _up(max(registers, 1) * 32, 256) // 4 * 4 // _up(warps, 4)
        by_shared = chip.shared // _up(shared + 1024, 128) if shared <= chip.shared_of_block else 0
    limits = {
        "blocks": chip.blocks,
        "warps": chip.warps // warps,
        "registers": by_registers,
        "shared memory": by_shared,
    }
    blocks = min(limits.values())
    limit = next(what for what, count in limits.items() if count == blocks)
    return Occupancy(blocks, blocks * warps / chip.warps, limit)


def _up(x: int, unit: int) -> int:
    return math.ceil(x / unit) * unit
