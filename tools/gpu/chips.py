"""The chips that cards are drawn for: their limits, beside their peaks as the data sheets give them, dense."""

from __future__ import annotations

import math
from typing import NamedTuple

from tlxml_fast.planning.sheets import SHEETS, Sheet


class Chip(NamedTuple):
    """Limits a multiprocessor or compute unit; then the whole chip. Sizes in bytes."""

    sheet: Sheet
    registers: int  # 32-bit, of all threads
    warps: int
    blocks: int
    shared: int
    shared_of_block: int
    units: int

    @property
    def name(self) -> str:
        return self.sheet.name

    @property
    def bandwidth(self) -> float:
        return self.sheet.bandwidth

    def peak(self, unit: str) -> float:
        """Flops a second; tf32x3 makes three products of one. Products of input_precision="ieee" run in fp32."""
        return self.sheet.tf32 / 3 if unit == "tf32x3" else getattr(self.sheet, unit)


CHIPS = {
    "sm_80": Chip(SHEETS["A100"], 65536, 64, 32, 167936, 166912, 108),
    "sm_90": Chip(SHEETS["H100"], 65536, 64, 32, 233472, 232448, 132),
    "sm_100": Chip(SHEETS["B200"], 65536, 64, 32, 233472, 232448, 148),
    "gfx942": Chip(SHEETS["MI300X"], 4 * 64 * 512, 32, 32, 65536, 65536, 304),
}


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
    else:  # by 256 a warp, as many warps in each of four parts; each block has 1 KiB of shared memory besides its own
        by_registers = chip.registers // _up(max(registers, 1) * 32, 256) // 4 * 4 // warps
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
