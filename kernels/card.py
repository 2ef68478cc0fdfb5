"""What the kernel-card check compiles: one launch of a kernel, and what it must cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction


class Card(NamedTuple):
    """A launch that is compiled without a device and measured against the data sheets.

    `fn.warmup(*args, grid=grid, **options)` compiles exactly what the launch would: torch dtypes stand for
    pointers that are multiples of 16 bytes, numbers are themselves.
    """

    name: str  # "file/op/what it is chosen for"
    fn: JITFunction
    args: tuple[Any, ...]
    grid: tuple[int, ...]
    options: dict[str, int]  # num_warps, num_stages
    flops: int
    bytes: int  # each input read and each output written once
    unit: str  # what its products run on: "fp32", "fp64", "tf32", "tf32x3" or "bf16"
    padded: bool = True  # whether rows are of a multiple of four numbers, which 128-bit accesses need
    call: tuple[Any, ...] = ()  # the launcher and its arguments, tensors on torch's meta device
    may_spill: int = (
        0  # accesses to spilled registers and bytes of stack, where a device was faster with them
    )


def drawn(
    name: str, launcher: Callable[..., None], *arguments: Any, flops: int, unit: str, padded: bool = True
) -> list[Card]:
    """The cards of what a launcher launches on these arguments, whose tensors are on torch's meta device.

    Bytes are those of its tensors; where it launches several kernels, each has a card with all of them.
    """
    launches: list[tuple[JITFunction, tuple[Any, ...], tuple[int, ...], dict[str, Any]]] = []

    def record(fn: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:
        launches.append((fn, tuple(x.dtype if isinstance(x, Tensor) else x for x in args), grid, options))

    with patch.object(JITFunction, "run", record):
        launcher(*arguments)
    numbers = sum(x.nbytes for x in arguments if isinstance(x, Tensor))
    many = len(launches) > 1
    return [
        Card(
            name + (f" {fn.__name__}" if many else ""),
            *(fn, args, grid, options, flops, numbers, unit, padded),
            call=(launcher, *arguments),
        )
        for fn, args, grid, options in launches
    ]


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")
