"""Triton's kernels, if triton is there: for CUDA tensors, or for the CPU's where its interpreter stands in."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether kernels are interpreted: slowly, and on CPU tensors. For tests; Triton reads the variable at import."""


@cache
def why_not_triton() -> str | None:
    """Why Triton's kernels cannot be launched, in one sentence; None if they can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton cannot be imported: {error}; `pip install triton`"
    return None


def kernel(op: str) -> Callable[..., None] | None:
    """The launcher of `op`, or None if there is none."""
    if why_not_triton() is not None:
        return None
    from tlxml_fast.kernels import launcher

    return launcher(op)
