"""The sparse Johnson–Lindenstrauss projection of rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.ops._dispatch import buffer, check, check_out, choose, deliver, dense, launch
from tlxml_fast.ops.philox import Stream, check_drawn, philox


def sjlt(
    x: Tensor,
    dimension: int,
    nonzeros: int,
    *,
    seed: int = 0,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Project rows with a sparse random matrix: x Pᵀ.

        P_ri = ε_bi / √s where r = h_b(i), for each of the s blocks b of rows; else 0

    Block b is the rows ⌊bd/s⌋ … ⌊(b+1)d/s⌋ − 1; h_b(i) is uniform in it, and ε_bi = ±1 (Kane and Nelson, "Sparser
    Johnson–Lindenstrauss transforms", J. ACM 61, 2014, the block construction; s = 1 is the count sketch). Both
    come from one word of Philox, keyed by the seed and counted by (i, b).

    m·q·s additions; x is read once, which is what takes the time.

    Args:
        x: [m, q], float32 or float64; any strides.
        dimension: d, the rows of P; above q too.
        nonzeros: s, the nonzero entries of each column of P, 1 to d.
        seed: of the projection, 0 to 2⁶³ − 1.
        backend: "native" (C++, CPU tensors), "triton" (CUDA tensors), "reference" (pure torch), or "auto": the
            compiled one of the tensors' device where it can run.
        out: where to write; [m, d], sharing no memory with x.

    Returns:
        [m, d]. P is the same on every backend. Sums run over i in order: results are bit-identical for any number of
        threads and any batching of rows.

    Raises:
        TlxError: the shape, dtype or a setting does not fit.
        BackendError: the compiled backend named cannot run on these tensors, or there is no such backend.
    """
    m, q = check("sjlt", x=(x, "m q")).values()
    check_drawn("sjlt", dimension, seed)
    if not 1 <= nonzeros <= dimension:
        raise TlxError(f"sjlt: nonzeros is {nonzeros}, expected 1 to dimension = {dimension}.")
    like = x.new_empty(()).expand(m, dimension)
    if out is not None:
        check_out("sjlt", out, like, x)
    if choose("sjlt", backend, x).backend == "reference":
        return deliver(sjlt_ref(x, dimension, nonzeros, seed=seed), out)

    result = buffer(out, like)
    launch("sjlt", dense(x), result, m, q, dimension, nonzeros, seed, flops=m * q * nonzeros)
    return deliver(result, out)


def sjlt_ref(x: Tensor, dimension: int, nonzeros: int, *, seed: int = 0) -> Tensor:
    """`sjlt` in plain torch: differentiable, for any transform and device."""
    places, signs = sjlt_places(x.shape[-1], dimension, nonzeros, seed, x.device)
    result = x.new_zeros(len(x), dimension)
    for place, sign in zip(places, signs.to(x.dtype), strict=True):
        result = result.index_add(1, place, x * sign)
    return result / math.sqrt(nonzeros)


def sjlt_places(
    q: int, dimension: int, nonzeros: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The rows of the nonzero entries of each column and their signs: [s, q], int64, and ±1."""
    b = torch.arange(nonzeros + 1, device=device)
    start = (b * dimension // nonzeros)[:, None]
    words = philox(
        seed,
        Stream.sjlt,
        torch.arange(q, device=device),
        torch.arange((nonzeros + 3) // 4, device=device)[:, None],
    )
    words = words.mT.flatten(0, 1)[:nonzeros]  # word b mod 4 of the place (i, b div 4)
    return start[:-1] + ((words >> 1) * start.diff(dim=0) >> 31), 1 - 2 * (words & 1)


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A small call of `sjlt`, for self-tests: its positional and keyword arguments."""
    return (torch.randn(5, 300, dtype=dtype, generator=generator), 33, 3), {"seed": 7}
