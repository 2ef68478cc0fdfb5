"""Cotangents of a task's logits whose pull-backs stand for its Gauss-Newton matrix in expectation.

A sketch takes the loss, logits f [B, n, C] in float64, targets, the number s of rows, and each task's draws. It returns
U [B, s, n, C] with E Σ_k u_k u_kᵀ = Λ, so that the rows u_kᵀJ have E Σ_k Jᵀu_k u_kᵀJ = JᵀΛJ.

With B the factor of Λ, Λ = (1/n) blockdiag(B_m B_mᵀ), every such u is B z/√n with coordinates z [n·r].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..losses import OuterLoss

# From so many rows on, one of them is the task's own gradient; of fewer, that would leave too few to the draws.
OWN_FROM = 4
# A direction of which orthogonalisation leaves less than this share is rounding.
BREAKDOWN = 1e-3


class Draws:
    """Random numbers of one task: Philox 4×64-10, keyed by a seed and the task's content.

    None depends on other tasks, on their order, or on the process. They are made of raw bits, so that neither platforms
    nor versions of numpy differ. (Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.)
    """

    def __init__(self, seed: int, task: str):
        high, low = int(task[:16], 16), int(task[16:], 16)
        self._bits = np.random.Philox(
            key=np.array([seed, high], np.uint64), counter=np.array([0, 0, 0, low], np.uint64)
        )

    def signs(self, *shape: int) -> Tensor:
        """±1 with equal chances, float64."""
        count = int(np.prod(shape))
        octets = self._bits.random_raw(-(-count // 64)).astype("<u8").view(np.uint8)
        bits = np.unpackbits(octets, count=count, bitorder="little")
        return torch.from_numpy(2.0 * bits - 1).view(shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float64."""
        words = self._bits.random_raw(int(np.prod(shape)))
        return torch.from_numpy((words >> np.uint64(11)) * 2.0**-53).view(shape)


Sketch = Callable[[OuterLoss, Tensor, Tensor | None, int, Sequence[Draws]], Tensor]


def labels(loss: OuterLoss, logits: Tensor, targets: Tensor | None, s: int, draws: Sequence[Draws]) -> Tensor:
    """(p − e_ŷ)/√(ns), with labels ŷ drawn from the model for every query and row; cross-entropy only."""
    n, C = logits.shape[1:]
    p = logits.softmax(-1)[:, None]
    u = torch.stack([draw.uniform(s, n, 1) for draw in draws])
    drawn = (p.cumsum(-1) <= u).sum(-1).clamp_max(C - 1)
    return (p - torch.nn.functional.one_hot(drawn, C)) / (n * s) ** 0.5


def rademacher(
    loss: OuterLoss, logits: Tensor, targets: Tensor | None, s: int, draws: Sequence[Draws]
) -> Tensor:
    """B z/√(ns), with independent signs z."""
    B = loss.factor(logits)
    z = torch.stack([draw.signs(s, *_coordinates(B)) for draw in draws])
    return torch.einsum("tmcr,tsmr->tsmc", B, z) / (len(B[0]) * s) ** 0.5


def krylov(loss: OuterLoss, logits: Tensor, targets: Tensor, s: int, draws: Sequence[Draws]) -> Tensor:
    """e directions exactly, and s − e mixes by signs of what is orthogonal to them.

    With a the coordinates of the task's own gradient, ∇L = JᵀBa/n, and D = blockdiag(B_mᵀB_m), E [n·r, e] is an
    orthonormal basis of span{a, Da, …, D^{e−1}a}, the rows are EᵀR and Z(I − EEᵀ)R/√(s − e) for R = BᵀJ/√n, and
    RᵀEEᵀR + E[RᵀZ'ᵀZ'R] = RᵀR whatever E is. The first row is the gradient to a factor. A damped inverse applied to
    it is a function of RRᵀ applied to a, for which E is a Krylov space if D stands for RRᵀ; D costs no pass.

    e minimises (tr D − tr EᵀDE)²/(s − e), the leading term of the variance: 1 where predictions are uncertain
    throughout, nearly s where few queries have most of the curvature. From 4 rows on it is at least 1.
    """
    B = loss.factor(logits)
    n, r = _coordinates(B)
    a = loss.coordinates(logits, targets).flatten(1)
    D = B.mT @ B
    E, caught = _krylov_space(D, a, s - 1)
    left = (B.square().sum((1, 2, 3))[:, None] - caught).clamp_min(0)
    left[:, 1:][(E == 0).all(-1)] = torch.inf  # no such direction
    if s >= OWN_FROM:
        left[:, 0][a.any(-1)] = torch.inf
    exact = (left.square() / torch.arange(s, 0, -1, dtype=left.dtype)).argmin(1)
    row = torch.arange(s)
    chosen = (row < exact[:, None])[..., None]
    E = torch.where(chosen, torch.nn.functional.pad(E, (0, 0, 0, 1)), 0)
    Z = torch.stack([draw.signs(s, n * r) for draw in draws]) / (s - exact).double()[:, None, None].sqrt()
    z = torch.where(chosen, E, Z - Z @ E.mT @ E)
    return torch.einsum("tmcr,tsmr->tsmc", B, z.unflatten(-1, (n, r))) / n**0.5


def _krylov_space(D: Tensor, a: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """E [B, most, n·r], orthonormal or, from where the space ends, zero; tr EᵀDE of its first 0 … most rows.

    D [B, n, r, r] are the blocks, a [B, n·r].
    """
    E = a.new_zeros(len(a), most, a.shape[1])
    caught = a.new_zeros(len(a), most + 1)
    v = a
    for k in range(most):
        E[:, k] = v = direction(v, E[:, :k])
        image = (D * v.view(len(v), *D.shape[1:3], 1)).sum(2)
        caught[:, k + 1] = caught[:, k] + (v * image.flatten(1)).sum(1)
        v = image.flatten(1)
    return E, caught


def direction(v: Tensor, basis: Tensor) -> Tensor:
    """v [B, m] less what lies in the rows of `basis` [B, k, m], of length 1; 0 where no more is left than rounding."""
    before = v.norm(dim=1)
    for _ in range(2):  # once more, for what rounding left
        v = v - ((v[:, None] @ basis.mT) @ basis)[:, 0]
    norm = v.norm(dim=1)
    return torch.where((norm > BREAKDOWN * before)[:, None], v / norm[:, None], 0)


def _coordinates(B: Tensor) -> tuple[int, int]:
    return B.shape[1], B.shape[3]


SKETCHES: dict[str, Sketch] = {"krylov": krylov, "rademacher": rademacher, "labels": labels}
