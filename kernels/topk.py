"""Launches csrc/cuda/topk.cu. Ballots and a list in shared memory are out of Triton's reach, so this kernel is C++."""

from __future__ import annotations

import torch
from torch import Tensor

from tlxml_fast.ops import _native
from tlxml_fast.ops._triton import INTERPRETED


def _topk(
    scores: Tensor, values: Tensor, indices: Tensor, R: int, m: int, k: int, first: int, largest: int
) -> None:
    """`topk` of csrc/ops.h on torch's current stream; it allocates nothing, so a CUDA graph can capture it."""
    with torch.cuda.device(scores.device):
        _native.kernel("topk_cuda", scores.dtype)(
            scores.data_ptr(), values.data_ptr(), indices.data_ptr(), R, m, k, first, largest,
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip


# Without a launcher the reference runs: Triton's interpreter has nothing to interpret here, and a core that was built
# without nvcc has no such kernel.
topk = None if INTERPRETED or _native.kernel("topk_cuda", torch.float32) is None else _topk
