"""A·Bᵀ by the faster of the two libraries that torch carries."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Rows of A and of B in multiples of these make the bits of an entry independent of its place, of the other rows and of
# their number: both are multiples of the register tiles of the kernels behind, whose edges are summed in another order.
ROWS_OF_A, ROWS_OF_B = 8, 48


def mm_nt(A: Tensor, B: Tensor) -> Tensor:
    """A·Bᵀ of contiguous matrices: [n, d], [m, d] → [n, m].

    2nmd flops. float32 on a processor with AVX-512 goes to oneDNN, where its bits can be relied on, and everything else
    to `torch.mm`: MKL takes AVX2 code on processors that are not Intel's, at half the rate. In the precision that torch
    is set to for float32.
    """
    if library(A.dtype, A.device.type) == "oneDNN":
        return _one_dnn(A, B)
    return torch.mm(A, B.mT)


@cache
def library(dtype: torch.dtype, device: str) -> str:
    """Whose matrix product `mm_nt` is, "oneDNN" or "torch.mm"; part of what decides the bits of a result."""
    wide = (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.backends.mkldnn.is_available()
    )
    there = wide and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return "oneDNN" if there and dtype == torch.float32 and device == "cpu" and _keeps_bits() else "torch.mm"


def _one_dnn(A: Tensor, B: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(A, B, None, "none", [], "")


def _keeps_bits() -> bool:
    """Whether entries of oneDNN's products depend on their rows alone: not in those of torch 2.10 and 2.11."""
    A, B = (torch.randn(n, 1024, generator=torch.Generator().manual_seed(n)) for n in (64, 96))
    part = _one_dnn(A[:ROWS_OF_A], B[:ROWS_OF_B])
    return torch.equal(part, _one_dnn(A, B)[:ROWS_OF_A, :ROWS_OF_B])
