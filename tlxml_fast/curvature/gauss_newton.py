"""The Gauss-Newton approximation of the Hessian."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..linearize import Linearization
from .base import Curvature

SAMPLE = 8


class GaussNewton(Curvature):
    """G = (1/M) Σ_t J_tᵀ Λ_t J_t + δI, with J_t = ∂f_t/∂ω and Λ_t the Hessian of the loss in the logits.

    Positive semi-definite, and free of the third-order terms of the exact Hessian through adaptation: O(pq) where
    that takes O(pq²) (TLXML, arXiv 2501.14271). Equal to the Hessian where f_t is linear in ω.

    A dense G costs, per task, either q products or n·r pull-backs of a factor of Λ_t (r = C−1 for cross-entropy) and
    2n·r·q² flops; whichever is measured to be cheaper.
    """

    name = "Gauss-Newton"

    def product(self, lin: Linearization, t: int, V: Tensor) -> Tensor:
        """J_tᵀ Λ_t J_t V."""
        return lin.gnvp_task(t, V)

    def ways_to_assemble(self, lin: Linearization) -> dict[str, Callable[[int], Tensor]]:
        """Products with the identity, or RᵀR of the pulled-back rows."""

        def pull_backs(t: int) -> Tensor:
            rows = lin.gn_rows(t).double()
            return rows.mT @ rows

        return {f"{lin.gn_rank} pull-backs a task": pull_backs, **super().ways_to_assemble(lin)}

    def seconds(self, lin: Linearization) -> dict[str, float]:
        """Times a few vectors each way on the first task."""
        cotangents = torch.ones(min(SAMPLE, lin.gn_rank), lin.n, lin.C, dtype=lin.dtype, device=lin.device)
        tangents = torch.ones(min(SAMPLE, lin.q), lin.q, dtype=lin.dtype, device=lin.device)

        def pull_back() -> None:
            rows = lin.vjp_task(0, cotangents).double()
            rows.mT @ rows

        a_pull_back = _seconds(pull_back) / len(cotangents)
        a_product = _seconds(lambda: lin.gnvp_task(0, tangents)) / len(tangents)
        pull_backs, products = self.ways_to_assemble(lin)
        return {pull_backs: a_pull_back * lin.gn_rank, products: a_product * lin.q}


def _seconds(run: Callable[[], object]) -> float:
    run()  # the first call chooses how to run, and warms up
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
