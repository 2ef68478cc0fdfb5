"""Rows of a task along the Krylov space of its own Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..linearize import Linearization
from .sketch import Draws, direction


def lanczos(lin: Linearization, block: slice, s: int, draws: Sequence[Draws]) -> Tensor:
    """R̂ [B, s, q]: EᵀR of e = ⌊s/2⌋ directions exactly, and s − e mixes by signs, Z(I − EEᵀ)R/√(s − e).

    With R = BᵀJ/√n [n·r, q] the task's rows and a the coordinates of its own gradient, ∇L = Rᵀa/√n, E is an orthonormal
    basis of span{a, Ka, …, K^{e−1}a}, K = RRᵀ; fewer where the space ends. E R̂ᵀR̂ = RᵀR whatever E is. Were cI what
    damping and other tasks add, the inverse would take the gradient to Rᵀ(c + K/M)⁻¹a/√n, of which e steps of Lanczos'
    method make the most from this space: what a task does to its own score is nearly right. The first row is the
    gradient to a factor.

    Costs s pull-backs and e − 1 forward products, of which 2e − 1 are of one vector and follow one another: on the CPU
    about twice the time of s pull-backs at once. On a device, where forward products go task by task and each makes its
    forward pass again, it has not been timed.

    (Lanczos 1950; Saad, Iterative Methods for Sparse Linear Systems, 2003, chapter 6.)
    """
    loss, n = lin.learner.loss, lin.n
    logits = lin.logits[block].cpu().double()
    B = loss.factor(logits) / n**0.5
    a = loss.coordinates(logits, lin.targets[block].cpu()).flatten(1)

    def pull(z: Tensor) -> Tensor:
        """R_tᵀ z_tk: [B, K, n·r] → [B, K, q]."""
        u = torch.einsum("tmcr,tsmr->tsmc", B, z.unflatten(-1, (n, B.shape[-1]))).to(lin.omega)
        return torch.cat([lin.vjp_block(block, part) for part in u.split(lin.vectors_at_once(), 1)], 1)

    def push(rows: Tensor) -> Tensor:
        """R_t row_t of every task's own: [B, q] → [B, n·r]."""
        images = [lin.jvp_block(slice(t, t + 1), row[None])[0, 0] for t, row in enumerate(rows, block.start)]
        return torch.einsum("tmcr,tmc->tmr", B, torch.stack(images).cpu().double()).flatten(1)

    e = s // 2
    E, rows = a.new_zeros(len(a), e, a.shape[1]), []
    for k in range(e):
        E[:, k] = direction(push(rows[-1][:, 0]) if rows else a, E[:, :k])
        rows.append(pull(E[:, k : k + 1]))
    Z = torch.stack([draw.signs(s - e, a.shape[1]) for draw in draws]) / (s - e) ** 0.5
    return torch.cat([*rows, pull(Z - Z @ E.mT @ E)], 1)
