"""The counter-based generator that random projections are drawn from, in plain torch: csrc/philox.h is the same.

Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter
of four 32-bit words and a key of two into four words that pass for random. There is no state: what is drawn for a place
depends on the seed and the place alone, whatever was drawn before, by whom and on which device.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from tlxml_fast.errors import TlxError

MOST_ROWS = 2**31 - 1  # of a projection: a place and a sign share a 32-bit word
WORD = 0xFFFFFFFF


class Stream(IntEnum):
    """The counter's fourth word: each use draws from a stream of its own."""

    sjlt = 1
    srht_signs = 2
    srht_rows = 3
    rademacher = 4


def check_drawn(op: str, dimension: int, seed: int) -> None:
    """Raise TlxError unless a projection to this dimension can be drawn with this seed."""
    if not isinstance(dimension, int) or not 1 <= dimension <= MOST_ROWS:
        raise TlxError(f"{op}: dimension is {dimension!r}, expected 1 to {MOST_ROWS}.")
    if not 0 <= seed < 2**63:
        raise TlxError(f"{op}: seed is {seed}, expected 0 to 2^63 - 1.")


def philox(seed: int, stream: int, i: Tensor, j: Tensor | int = 0) -> Tensor:
    """The words of the places (i, j) of a stream: int64 tensors that broadcast → [..., 4], int64 in 0 .. 2³² − 1.

    The key is the seed, 64 bits; the counter is (the low and high words of i, j, the stream).
    """
    i, j = torch.broadcast_tensors(i, torch.as_tensor(j, dtype=torch.int64, device=i.device))
    c0, c1, c2, c3 = i & WORD, i >> 32 & WORD, j & WORD, torch.full_like(i, stream)
    k0, k1 = seed & WORD, seed >> 32 & WORD
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2  # int64 wraps, and its bits are those of the unsigned product
        c0, c1, c2, c3 = (b >> 32 & WORD) ^ c1 ^ k0, b & WORD, (a >> 32 & WORD) ^ c3 ^ k1, a & WORD
        k0, k1 = k0 + 0x9E3779B9 & WORD, k1 + 0xBB67AE85 & WORD
    return torch.stack((c0, c1, c2, c3), -1)


def signs(seed: int, stream: int, first: int, count: int, j: Tensor, dtype: torch.dtype) -> Tensor:
    """±1 for columns first .. first + count − 1 and each j: [len(j), count]. `first` is a multiple of 128.

    Column i of j has bit i mod 32 of word (i div 32) mod 4 of the place (i div 128, j), and a one is a minus.
    """
    blocks = torch.arange(first // 128, (first + count + 127) // 128, device=j.device)
    words = philox(seed, stream, blocks, j[:, None]).flatten(1)
    bits = words[..., None] >> torch.arange(32, device=j.device) & 1
    return (1 - 2 * bits.flatten(1)[:, :count]).to(dtype)
