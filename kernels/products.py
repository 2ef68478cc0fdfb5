"""A tile's product in the precision that was asked for: what all kernels with `precision=` share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_product(acc, left, right, PRECISION: tl.constexpr):
    """acc + left · right, summed in acc's type; PRECISION is what `tl.dot` calls it, or bf16."""
    if PRECISION == "bf16":
        acc = tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16), acc)
    else:
        acc = tl.dot(left, right, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc
