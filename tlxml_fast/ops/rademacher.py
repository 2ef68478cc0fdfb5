"""The dense Rademacher projection of rows, its signs generated on the fly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tlxml_fast.ops._dispatch import buffer, check, check_out, choose, deliver, dense, launch
from tlxml_fast.ops.philox import Stream, check_drawn, signs

SIGNS_AT_ONCE = 1 << 22  # of the reference


def rademacher(
    x: Tensor, dimension: int, *, seed: int = 0, backend: str = "auto", out: Tensor | None = None
) -> Tensor:
    """Project rows with a dense matrix of random signs, which is never in memory: x Pᵀ.

        P_ri = ±1 / √d, independent

    (Achlioptas, "Database-friendly random projections: Johnson–Lindenstrauss with binary coins", JCSS 66, 2003.)
    A sign is a bit of Philox, keyed by the seed and counted by (i div 128, r).

    The C++ kernel makes m·q·d/4 additions: all 16 signed sums of four numbers are made once and looked up for each
    of the d rows of P. The Triton kernel makes 2·m·q·d flops.

    Args:
        x: [m, q], float32 or float64; any strides.
        dimension: d, the rows of P; above q too.
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
    m, q = check("rademacher", x=(x, "m q")).values()
    check_drawn("rademacher", dimension, seed)
    like = x.new_empty(()).expand(m, dimension)
    if out is not None:
        check_out("rademacher", out, like, x)
    if choose("rademacher", backend, x).backend == "reference":
        return deliver(rademacher_ref(x, dimension, seed=seed), out)

    result = buffer(out, like)
    launch("rademacher", dense(x), result, m, q, dimension, seed, flops=2 * m * q * dimension)
    return deliver(result, out)


def rademacher_ref(x: Tensor, dimension: int, *, seed: int = 0) -> Tensor:
    """`rademacher` in plain torch, some columns of P at a time: differentiable, for any transform and device."""
    q, outputs = x.shape[-1], torch.arange(dimension, device=x.device)
    columns = max(1, SIGNS_AT_ONCE // dimension // 128) * 128
    result = x.new_zeros(len(x), dimension)
    for first in range(0, q, columns):
        part = x[:, first : first + columns]
        panel = signs(seed, Stream.rademacher, first, part.shape[1], outputs, x.dtype)
        result = result + part @ panel.mT
    return result / math.sqrt(dimension)


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A small call of `rademacher`, for self-tests: its positional and keyword arguments."""
    return (torch.randn(5, 300, dtype=dtype, generator=generator), 33), {"seed": 7}
