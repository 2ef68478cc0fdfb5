"""Products of stacks of small matrices, one pair a task or a tile.

Large products are torch's. On the CPU, MKL, on which most builds of torch multiply, keeps to AVX2 on processors that
are not Intel's: half of what one with AVX-512 can do (90 of 200 GFLOP/s on a core of an EPYC 9005). For the small
products between Winograd's transforms a plain kernel reaches it; at other SIMD levels torch multiplies these too. On a
device a kernel of our own takes stacks of small matrices, and all where `precision` asks for tensor cores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlxml_fast.ops import _native, _triton
from tlxml_fast.ops._dispatch import backend_of, device_of, has_kernel
from tlxml_fast.profiling import span

SMALL = 128 * 128


def stacked_mm(
    a: Tensor,
    b: Tensor,
    add_to: Tensor | None = None,
    out: Tensor | None = None,
    precision: str = "fp32",
) -> Tensor:
    """a b for a [B, m, k] and b [B, k, n]: added to `add_to` in place, or written into `out`, or new; [B, m, n].

    Any strides of a and b; the columns of add_to and out lie beside each other. `precision` is one of
    `ops.convolution.PRECISIONS`, for float32 on a device.
    """
    m, k, n = *a.shape[1:], b.shape[2]
    numbers = a.numel() + b.numel() + len(a) * m * n
    with span("matrix products", 2 * len(a) * m * k * n, numbers * a.element_size(), dtype=a.dtype):
        if not _here(a, b, add_to, m * n, precision):
            return stacked_mm_ref(a, b, add_to, out)
        result = (
            a.new_empty(len(a), m, n) if add_to is None and out is None else out if add_to is None else add_to
        )
        sizes = (len(a), m, k, n, *a.stride(), *b.stride(), *result.stride()[:2], add_to is not None)
        if backend_of(a.device) == "native":
            _native.kernel("stacked_mm", a.dtype)(a.data_ptr(), b.data_ptr(), result.data_ptr(), *sizes)
        else:
            with device_of(a):
                _triton.kernel("stacked_mm")(a, b, result, *sizes, precision)
        return result


def _here(a: Tensor, b: Tensor, add_to: Tensor | None, size: int, precision: str) -> bool:
    """Whether our kernel multiplies, not torch."""
    if not has_kernel("stacked_mm", a, b, add_to):
        return False
    if backend_of(a.device) == "native":
        return _native.core.simd_bytes() == 64
    return size <= SMALL or (precision != "fp32" and a.dtype == torch.float32)


def stacked_mm_ref(a: Tensor, b: Tensor, add_to: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """`stacked_mm` by torch."""
    if add_to is not None:
        return add_to.baddbmm_(a, b)
    return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)


def examples(dtype: torch.dtype, generator: torch.Generator) -> dict[str, tuple]:
    """A small call for self-tests: function, reference, arguments."""
    a = torch.randn(3, 7, 5, dtype=dtype, generator=generator)
    b = torch.randn(3, 5, 90, dtype=dtype, generator=generator)
    return {"stacked_mm": (stacked_mm, stacked_mm_ref, (a, b))}
