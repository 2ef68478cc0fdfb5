"""The subsampled randomised Hadamard transform of rows."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.ops._dispatch import buffer, check, check_out, choose, deliver, dense, launch
from tlxml_fast.ops.philox import Stream, check_drawn, philox, signs

BLOCK = 4096  # columns that kernels transform together, in the second-level cache or one program


def srht(
    x: Tensor, dimension: int, *, seed: int = 0, backend: str = "auto", out: Tensor | None = None
) -> Tensor:
    """Project rows with sampled rows of a Hadamard matrix whose columns have random signs: x Pᵀ.

        P = S H D / √d,      H_ri = (−1)^popcount(r & i),  r, i < N

    N is q padded to a power of two, D = diag(±1), and S takes d of the N rows without replacement (Ailon and
    Chazelle, "The fast Johnson–Lindenstrauss transform", SIAM J. Comput. 39, 2009; Tropp, "Improved analysis of the
    subsampled randomized Hadamard transform", 2011). Signs and rows come from Philox, keyed by the seed.

    m·q·12 additions for blocks of 4,096 columns, and m·d·q/4096 to add up the rows wanted of them: the levels above
    are not made for the rows that nobody asks for.

    Args:
        x: [m, q], float32 or float64; any strides.
        dimension: d, 1 to N; at d = N, P is an isometry.
        seed: of the projection, 0 to 2⁶³ − 1.
        backend: "native" (C++, CPU tensors), "triton" (CUDA tensors), "reference" (pure torch), or "auto": the
            compiled one of the tensors' device where it can run.
        out: where to write; [m, d], sharing no memory with x.

    Returns:
        [m, d]. P is the same on every backend; results are bit-identical for any number of threads and any batching
        of rows.

    Raises:
        TlxError: the shape, dtype or a setting does not fit.
        BackendError: the compiled backend named cannot run on these tensors, or there is no such backend.
    """
    m, q = check("srht", x=(x, "m q")).values()
    check_srht(dimension, q, seed)
    like = x.new_empty(()).expand(m, dimension)
    if out is not None:
        check_out("srht", out, like, x)
    if choose("srht", backend, x).backend == "reference":
        return deliver(srht_ref(x, dimension, seed=seed), out)

    result, rows = buffer(out, like), srht_rows(q, dimension, seed).to(x.device)
    flops = m * (q * int(math.log2(min(padded(q), BLOCK))) + dimension * -(-q // BLOCK))
    launch("srht", dense(x), rows, result, m, q, dimension, seed, flops=flops)
    return deliver(result, out)


def srht_ref(x: Tensor, dimension: int, *, seed: int = 0) -> Tensor:
    """`srht` in plain torch: differentiable, for any transform and device."""
    q = x.shape[-1]
    flips = signs(seed, Stream.srht_signs, 0, q, torch.zeros(1, dtype=torch.int64, device=x.device), x.dtype)
    x = torch.nn.functional.pad(x * flips, (0, padded(q) - q))
    rows = _constant_rows(q, dimension, seed).to(x.device)
    return hadamard(x).index_select(1, rows) / math.sqrt(dimension)


def hadamard(x: Tensor) -> Tensor:
    """x H for rows of a power of two: [..., N] → [..., N], in log₂ N levels of additions."""
    for level in range(int(math.log2(x.shape[-1]))):
        a, b = x.unflatten(-1, (-1, 2, 2**level)).unbind(-2)
        x = torch.stack((a + b, a - b), -2).flatten(-3)
    return x


def padded(q: int) -> int:
    """The least power of two of at least q."""
    return 1 << (q - 1).bit_length()


def check_srht(dimension: int, q: int, seed: int) -> None:
    """Raise TlxError unless q numbers can be projected to this dimension with this seed."""
    check_drawn("srht", dimension, seed)
    if dimension > padded(q):
        raise TlxError(
            f"srht: dimension is {dimension}, but of {q} numbers, padded to {padded(q)}, there are no more than "
            f"{padded(q)} Hadamard coefficients."
        )


@lru_cache(maxsize=16)
def srht_rows(q: int, dimension: int, seed: int) -> Tensor:
    """The rows of H that are sampled: [d], int64, by their place in a block, so that kernels walk it forwards.

    Candidates are drawn one after the other, and those that are new are kept: a uniform sample without replacement.
    Where that would be most of the N rows, those left out are sampled.
    """
    N = padded(q)
    few = min(dimension, N - dimension)
    drawn = distinct(few, N, seed)
    if few < dimension:
        left = np.ones(N, dtype=bool)
        left[drawn] = False
        drawn = np.flatnonzero(left)
    return torch.from_numpy(drawn[np.lexsort((drawn, drawn % BLOCK))])


def _constant_rows(q: int, dimension: int, seed: int) -> Tensor:
    """The rows, for torch.compile a constant."""
    return srht_rows(q, dimension, seed)


# all that torch.compiler.assume_constant_result does, which imports the compiler: a second
_constant_rows._dynamo_marked_constant = True


def distinct(count: int, N: int, seed: int) -> np.ndarray:
    """The first `count` different numbers among candidates below N, a power of two; at most half of N."""
    draws = 2 * count
    while True:
        words = philox(seed, Stream.srht_rows, torch.arange(draws)).numpy()
        found, first = np.unique((words[:, 0] | words[:, 1] << 32) & (N - 1), return_index=True)
        if len(found) >= count:
            return found[np.argsort(first)[:count]]
        draws *= 2


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A small call of `srht`, for self-tests: its positional and keyword arguments."""
    return (torch.randn(5, 300, dtype=dtype, generator=generator), 33), {"seed": 7}
