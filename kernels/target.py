"""What a launch may ask of the device's compiler."""

from __future__ import annotations

from typing import Any

from triton.runtime import driver


def all_registers(options: dict[str, Any]) -> dict[str, Any]:
    """`options`, and on NVIDIA all registers a thread can have: else ptxas may spill to fit one more block."""
    try:
        nvidia = driver.active.get_current_target().backend == "cuda"
    except RuntimeError:  # no device: nothing is compiled here, or by the interpreter
        nvidia = True
    return {**options, "maxnreg": 255} if nvidia else options
