"""The places of csrc/philox.h for Triton: `tl.philox` is Philox 4x32-10."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def words(seed, stream, i, j):
    """The four words of the places (i, j) of a stream: int32 tensors that broadcast, none negative."""
    zero = (i + j) * 0
    return tl.philox(seed, i + zero, zero, j + zero, stream + zero)


@triton.jit
def parity(x):
    """The number of ones in non-negative int32s, modulo 2."""
    x ^= x >> 16
    x ^= x >> 8
    x ^= x >> 4
    x ^= x >> 2
    return (x ^ (x >> 1)) & 1
