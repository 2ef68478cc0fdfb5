"""A tile times signs: exact on tensor cores in float32 too, where a number is the sum of three bfloat16s."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def times_signs(x, signs):
    """x · signs, for signs of ±1.

    Tensor cores round their sums of float32 towards zero: few enough here, but one sum over many tiles would shrink.
    Add tiles up outside.
    """
    if x.dtype == tl.float64:
        product = tl.dot(x, signs.to(x.dtype), out_dtype=x.dtype)
    else:
        ROWS: tl.constexpr = x.shape[0]
        COLUMNS: tl.constexpr = signs.shape[1]
        product = tl.zeros((ROWS, COLUMNS), x.dtype)
        for _ in tl.static_range(3):
            leading = (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(x.dtype, bitcast=True)
            product = tl.dot(leading.to(tl.bfloat16), signs.to(tl.bfloat16), product)
            x -= leading
    return product
