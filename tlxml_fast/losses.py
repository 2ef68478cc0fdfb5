"""Outer losses, each with its output Hessian Λ and a factor of it.

For logits f [n, C] of the n queries of a task, L = (1/n) Σ_m ℓ(f_m, y_m) and Λ = ∂²L/∂f² is block-diagonal over
queries. `factor` gives B [n, C, r] with Λ = (1/n) blockdiag(B_m B_mᵀ): its n·r columns, pulled back through the
task's Jacobian J = ∂f/∂ω, give JᵀΛJ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import LearnerError
from .ops import softmax_gn


class OuterLoss(ABC):
    """A loss on query logits that is a mean over queries."""

    name: str
    regression: bool

    @abstractmethod
    def per_query(self, logits: Tensor, targets: Tensor) -> Tensor:
        """ℓ(f_m, y_m) for every query: logits [n, C], targets [n] → [n]."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """L, the mean over queries."""
        return self.per_query(logits, targets).mean()

    @abstractmethod
    def output_hessian(self, logits: Tensor, u: Tensor, backend: str = "auto") -> Tensor:
        """Λu for T tasks and K vectors: logits [T, n, C], u [T, K, n, C] → [T, K, n, C]."""

    @abstractmethod
    def gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """∂L/∂f: logits [T, n, C], targets [T, n] (or [T, n, C]) → [T, n, C]."""

    @abstractmethod
    def curve(self, logits: Tensor, u: Tensor) -> Tensor:
        """Λu for vectors that lie beside each other: logits [T, n, C], u [T, n, K, C] → [T, n, K, C]."""

    @abstractmethod
    def third(self, logits: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The derivative of Λu along v: logits [T, n, C], u [T, n, 1, C], v [T, n, K, C] → [T, n, K, C]."""

    @abstractmethod
    def rank(self, outputs: int) -> int:
        """r, the rank of one query's block of Λ for C outputs."""

    @abstractmethod
    def factor(self, logits: Tensor) -> Tensor:
        """B: logits [..., n, C] → [..., n, C, r], with Λ = (1/n) blockdiag(B_m B_mᵀ)."""

    def refuses(self, targets: Tensor) -> str | None:
        """What is wrong with targets that are of the right kind, if anything is."""
        return None

    @abstractmethod
    def coordinates(self, logits: Tensor, targets: Tensor) -> Tensor:
        """a with B_m a_m = ∂ℓ_m/∂f_m: logits [..., n, C], targets [..., n] (or [..., n, C]) → [..., n, r]."""


class CrossEntropy(OuterLoss):
    """ℓ = −log softmax(f)_y;  Λ_m = (diag p − p pᵀ)/n."""

    name, regression = "cross_entropy", False

    def per_query(self, logits: Tensor, targets: Tensor) -> Tensor:
        """−log p_y of every query."""
        return F.cross_entropy(logits, targets, reduction="none")

    def output_hessian(self, logits: Tensor, u: Tensor, backend: str = "auto") -> Tensor:
        """p∘(u − ⟨p, u⟩)/n."""
        return softmax_gn(logits, u, backend=backend)

    def gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(p − e_y)/n."""
        p = logits.softmax(-1)
        return (
            p.scatter_add(-1, targets[..., None], p.new_full((), -1.0).expand(*targets.shape, 1))
            / logits.shape[-2]
        )

    def curve(self, logits: Tensor, u: Tensor) -> Tensor:
        """p∘(u − ⟨p, u⟩)/n, every query as a task of its own."""
        C = logits.shape[-1]
        product = softmax_gn(logits.reshape(-1, 1, C), u.reshape(-1, u.shape[-2], 1, C))
        return product.view(u.shape) / logits.shape[-2]

    def third(self, logits: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """With ṗ = p∘(v − ⟨p, v⟩):  (ṗ∘(u − ⟨p, u⟩) − p⟨ṗ, u⟩)/n."""
        p = logits.softmax(-1)[..., None, :]
        moved = p * (v - (p * v).sum(-1, keepdim=True))
        centred = u - (p * u).sum(-1, keepdim=True)
        return (moved * centred - p * (moved * u).sum(-1, keepdim=True)) / logits.shape[-2]

    def rank(self, outputs: int) -> int:
        """C − 1: Λ_m annihilates constants."""
        return outputs - 1

    def factor(self, logits: Tensor) -> Tensor:
        """D Q, with D = diag √p and Q [C, C−1] an orthonormal basis of the complement of s = √p.

        diag p − p pᵀ = D(I − s sᵀ)D = D Q Qᵀ D. Q is columns 2 … C of the Householder reflection that takes the
        first unit vector to −s: I − v vᵀ/v₁ with v = s + e₁, free of cancellation since s ≥ 0.
        """
        s = torch.softmax(logits, dim=-1).sqrt()
        return s[..., None] * _complement(s)

    def coordinates(self, logits: Tensor, targets: Tensor) -> Tensor:
        """QᵀD⁻¹(p − e_y) = −Q_y/√p_y, since Qᵀs = 0; a p_y below 10⁻²⁰⁰, or the dtype's least, is taken for that."""
        s = torch.softmax(logits, dim=-1).sqrt()
        of_target = targets[..., None, None].expand(*targets.shape, 1, s.shape[-1] - 1)
        s_y = s.gather(-1, targets[..., None]).clamp_min(max(1e-100, torch.finfo(s.dtype).tiny ** 0.5))
        return -_complement(s).gather(-2, of_target)[..., 0, :] / s_y


class MeanSquaredError(OuterLoss):
    """ℓ = ‖f − y‖²/C, so that L is the mean over queries and outputs;  Λ = 2/(nC)·I, whatever f is."""

    name, regression = "mse", True

    def per_query(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over outputs of (f − y)² for every query; targets are [n] or [n, C]."""
        return (logits - _like(logits, targets)).square().mean(dim=-1)

    def output_hessian(self, logits: Tensor, u: Tensor, backend: str = "auto") -> Tensor:
        """2u/(nC)."""
        return u * (2 / (logits.shape[-2] * logits.shape[-1]))

    def gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """2(f − y)/(nC)."""
        return 2 * (logits - _like(logits, targets)) / (logits.shape[-2] * logits.shape[-1])

    def curve(self, logits: Tensor, u: Tensor) -> Tensor:
        """2u/(nC)."""
        return u * (2 / (logits.shape[-2] * logits.shape[-1]))

    def third(self, logits: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(v)

    def rank(self, outputs: int) -> int:
        """C."""
        return outputs

    def factor(self, logits: Tensor) -> Tensor:
        """√(2/C)·I for every query."""
        outputs = logits.shape[-1]
        scaled = torch.eye(outputs, dtype=logits.dtype, device=logits.device) * (2 / outputs) ** 0.5
        return scaled.expand(*logits.shape, outputs)

    def coordinates(self, logits: Tensor, targets: Tensor) -> Tensor:
        """√(2/C)(f − y)."""
        return (logits - _like(logits, targets)) * (2 / logits.shape[-1]) ** 0.5


class BinaryCrossEntropy(OuterLoss):
    """ℓ = −(1/C) Σ_c y_c log σ(f_c) + (1 − y_c) log(1 − σ(f_c)), for C yes-or-no outputs;  Λ = diag σ(1 − σ)/(nC).

    Targets are real numbers in [0, 1], as those of a regression task.
    """

    name, regression = "binary_cross_entropy", True

    def per_query(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over outputs of log(1 + eᶠ) − y f for every query; targets are [n] or [n, C]."""
        each = F.binary_cross_entropy_with_logits(logits, _like(logits, targets), reduction="none")
        return each.mean(dim=-1)

    def output_hessian(self, logits: Tensor, u: Tensor, backend: str = "auto") -> Tensor:
        """σ(1 − σ)∘u/(nC)."""
        return self._spread(logits)[:, None] * u / (logits.shape[-2] * logits.shape[-1])

    def gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(σ − y)/(nC)."""
        return (logits.sigmoid() - _like(logits, targets)) / (logits.shape[-2] * logits.shape[-1])

    def curve(self, logits: Tensor, u: Tensor) -> Tensor:
        """σ(1 − σ)∘u/(nC)."""
        return self._spread(logits)[..., None, :] * u / (logits.shape[-2] * logits.shape[-1])

    def third(self, logits: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """σ(1 − σ)(1 − 2σ)∘u∘v/(nC)."""
        slope = self._spread(logits) * (1 - 2 * logits.sigmoid())
        return slope[..., None, :] * u * v / (logits.shape[-2] * logits.shape[-1])

    def rank(self, outputs: int) -> int:
        """C."""
        return outputs

    def factor(self, logits: Tensor) -> Tensor:
        """diag √(σ(1 − σ)/C) of every query."""
        return (self._spread(logits) / logits.shape[-1]).sqrt().diag_embed()

    def coordinates(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(σ − y)/√(C σ(1 − σ)); a σ(1 − σ) below 10⁻²⁰⁰, or the dtype's least, is taken for that."""
        root = self._spread(logits).sqrt().clamp_min(max(1e-100, torch.finfo(logits.dtype).tiny ** 0.5))
        return (logits.sigmoid() - _like(logits, targets)) / (root * logits.shape[-1] ** 0.5)

    def refuses(self, targets: Tensor) -> str | None:
        """Targets are probabilities."""
        return None if ((targets >= 0) & (targets <= 1)).all() else "targets outside 0 … 1"

    @staticmethod
    def _spread(logits: Tensor) -> Tensor:
        """σ(1 − σ), without cancellation."""
        return logits.sigmoid() * (-logits).sigmoid()


def _like(logits: Tensor, targets: Tensor) -> Tensor:
    """Targets [n] or [n, C] in the shape of the logits [n, C]; LearnerError where they are not as many."""
    if targets.numel() != logits.numel():
        raise LearnerError(
            f"the model's outputs are of shape {tuple(logits.shape)}, and the targets of shape {tuple(targets.shape)}"
        )
    return targets.reshape(logits.shape)


def _complement(s: Tensor) -> Tensor:
    """Q [..., C, C−1], an orthonormal basis of the complement of unit vectors s [..., C] ≥ 0."""
    v = s.clone()
    v[..., 0] += 1
    identity = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    reflection = identity - v[..., :, None] * v[..., None, :] / v[..., 0, None, None]
    return reflection[..., 1:]


LOSSES: dict[str, OuterLoss] = {
    loss.name: loss for loss in (CrossEntropy(), MeanSquaredError(), BinaryCrossEntropy())
}


def get_loss(name: str) -> OuterLoss:
    """The outer loss of that name; LearnerError otherwise."""
    if name not in LOSSES:
        raise LearnerError(f"loss is one of {', '.join(LOSSES)}, not {name!r}")
    return LOSSES[name]
