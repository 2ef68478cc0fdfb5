"""The effective rank of a curvature whose spectrum is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .products import generator

PROBES = 2
# To which the probes are solved, where that is by iteration: what it costs beside many right-hand sides is little.
PROBE_TOL = 1e-3


class Estimate(NamedTuple):
    """An effective rank, and its standard deviation at most."""

    rank: float
    error: float


def effective_rank(
    solve: Callable[[Tensor], Tensor], damping: float, q: int, device: torch.device
) -> Estimate:
    """Σ λ_i/(λ_i + λ) over the eigenvalues λ_i of A: q − λ·tr (A + λ)⁻¹, the trace by random vectors.

    tr (A + λ)⁻¹ ≈ mean of z·(A + λ)⁻¹z over two vectors z of random signs (Hutchinson 1990). The variance is
    ‖A(A + λ)⁻¹‖²_F less its diagonal, at most the effective rank itself.

    solve  (A + λ)⁻¹ z_k for A ≥ 0 and z [2, q], float64
    """
    signs = torch.randint(0, 2, (PROBES, q), generator=generator(0))
    z = (2 * signs - 1).to(device, torch.float64)
    trace = float((z * solve(z)).sum() / PROBES)
    rank = min(max(q - damping * trace, 0.0), float(q))
    return Estimate(rank, (2 * rank / PROBES) ** 0.5)
