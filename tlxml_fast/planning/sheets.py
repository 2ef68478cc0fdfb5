"""What data sheets say of accelerators: dense peaks, memory, and links."""

from __future__ import annotations

from typing import NamedTuple


class Sheet(NamedTuple):
    """Bytes; bytes a second; flops a second without sparsity, fp32 and fp64 those outside tensor cores."""

    name: str
    memory: float
    bandwidth: float
    link: float
    """To the other devices of a machine, both directions together."""
    fp32: float
    fp64: float
    tf32: float
    bf16: float


SHEETS = {
    "A100": Sheet("A100 SXM 80 GB", 80e9, 2.039e12, 600e9, 19.5e12, 9.7e12, 156e12, 312e12),
    "H100": Sheet("H100 SXM", 80e9, 3.35e12, 900e9, 67e12, 34e12, 494.7e12, 989.4e12),
    "H200": Sheet("H200 SXM", 141e9, 4.8e12, 900e9, 67e12, 34e12, 494.7e12, 989.4e12),
    "B200": Sheet("B200", 180e9, 8.0e12, 1.8e12, 75e12, 37e12, 1125e12, 2250e12),
    "MI300X": Sheet("MI300X", 192e9, 5.3e12, 896e9, 163.4e12, 81.7e12, 653.7e12, 1307.4e12),
    "L40S": Sheet("L40S", 48e9, 864e9, 64e9, 91.6e12, 1.43e12, 183e12, 362e12),
}
