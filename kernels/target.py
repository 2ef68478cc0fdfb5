"""What a launch may ask of the device's compiler."""

from __future__ import annotations

from typing import Any

from triton.runtime import driver


def all_registers(options: dict[str, Any]) -> dict[str, Any]:
    """`options`, and on NVIDIA all registers a thread can have: else ptxas may spill to fit one more block."""
    return {**options, "maxnreg": 255} if nvidia_architecture() else options


def nvidia_architecture() -> int:
    """80, 90, …; 0 on a chip of another make. Where nothing is compiled, as by the interpreter, the least of them."""
    try:
        target = driver.active.get_current_target()
    except RuntimeError:
        return 80
    return target.arch if target.backend == "cuda" else 0
