"""The ProtoNet head as a differentiable function: class means and distance logits (Snell et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vmap

from ..errors import LearnerError
from ..parallel import FORWARD_MODE

DISTANCES = ("sqeuclidean", "euclidean", "cosine")

# Under a root, so that a query that lies on a prototype has a finite derivative.
SQUARED_OFFSET = 1e-12


def class_means(z: Tensor, y: Tensor, ways: int) -> Tensor:
    """c_c = mean of z over the examples of class c: z [..., m, D], y [..., m] → [..., ways, D]."""
    # == rather than one_hot, which fails under vmap
    member = (y[..., None, :] == torch.arange(ways, device=y.device)[:, None]).to(z.dtype)
    return (member @ z) / member.sum(-1, keepdim=True)


def prototype_logits(
    z: Tensor, prototypes: Tensor, distance: str = "sqeuclidean", scale: float = 1.0
) -> Tensor:
    """f_mc = −scale·d(z_m, c_c), or scale·cos: z [..., n, D], prototypes [..., C, D] → [..., n, C].

    d is ‖z−c‖² ("sqeuclidean") or √(‖z−c‖² + 1e-12) ("euclidean"); "cosine" is ⟨z,c⟩/(‖z‖‖c‖), squared norms
    offset by 1e-12 under the root. Differentiable to any order, under any torch.func transform.
    """
    if distance == "cosine":
        lengths = (z.square().sum(-1)[..., :, None] + SQUARED_OFFSET).sqrt() * (
            prototypes.square().sum(-1)[..., None, :] + SQUARED_OFFSET
        ).sqrt()
        return scale * (z @ prototypes.mT) / lengths
    if distance not in DISTANCES:
        raise LearnerError(f"distance is one of {', '.join(DISTANCES)}, not {distance!r}")
    # Distances do not change under a shift, which spares a² + b² − 2ab its cancellation (cdist has no forward mode).
    centre = prototypes.detach().mean(-2, keepdim=True)
    z, prototypes = z - centre, prototypes - centre
    squared = (
        z.square().sum(-1)[..., :, None] + prototypes.square().sum(-1)[..., None, :] - 2 * z @ prototypes.mT
    )
    if distance == "sqeuclidean":
        return -scale * squared
    return -scale * (squared.clamp_min(0) + SQUARED_OFFSET).sqrt()


# ---- the head's derivatives, for T tasks and K vectors ----------------------------------------------------


@dataclass(frozen=True)
class Head:
    """A ProtoNet head: ∂f_mc/∂z_m = α_mc z_m + β_mc c_c, ∂f_mc/∂c_c = β_mc z_m + γ_mc c_c.

    `proto_gn` has the coefficients; where only differences count, z and c are taken from the prototypes' mean.
    """

    z: Tensor
    c: Tensor
    mean: Tensor
    """[T, C, S], which makes class means of support embeddings."""
    logits: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor


def proto_head(z: Tensor, labels: Tensor, ways: int, distance: str, scale: float) -> Head:
    """The head at z [T, S + n, D], support embeddings first, with labels [T, S]."""
    S = labels.shape[1]
    member = (labels[:, None] == torch.arange(ways, device=labels.device)[:, None]).to(z.dtype)
    mean = member / member.sum(-1, keepdim=True)
    c = mean @ z[:, :S]
    z = z[:, S:]
    if distance != "cosine":
        centre = c.mean(1, keepdim=True)
        z, c = z - centre, c - centre
    z_squared = z.square().sum(-1, keepdim=True)
    c_squared = c.square().sum(-1)[:, None]
    cross = z @ c.mT
    if distance == "cosine":
        z_squared, c_squared = z_squared + SQUARED_OFFSET, c_squared + SQUARED_OFFSET
        beta = scale / (z_squared * c_squared).sqrt()
        logits = beta * cross
        return Head(z, c, mean, logits, -logits / z_squared, beta, -logits / c_squared)
    squared = z_squared + c_squared - 2 * cross
    if distance == "sqeuclidean":
        logits, beta = -scale * squared, torch.full_like(squared, 2 * scale)
    else:
        root = (squared.clamp_min(0) + SQUARED_OFFSET).sqrt()
        logits, beta = -scale * root, scale / root
    return Head(z, c, mean, logits, -beta, beta, -beta)


def head_jvp(head: Head, dz: Tensor) -> Tensor:
    """Tangents of the logits, [T, K, n, C], along dz [T, K, S + n, D]."""
    S = head.mean.shape[2]
    dc, dq = head.mean[:, None] @ dz[:, :, :S], dz[:, :, S:]
    z, c = head.z[:, None], head.c[:, None]
    cross = dq @ c.mT + z @ dc.mT
    own_z, own_c = (z * dq).sum(-1)[..., None], (c * dc).sum(-1)[:, :, None]
    return head.alpha[:, None] * own_z + head.beta[:, None] * cross + head.gamma[:, None] * own_c


def head_vjp(head: Head, u: Tensor) -> Tensor:
    """Cotangents of z, [T, K, S + n, D], of those of the logits, u [T, K, n, C]."""
    z, c = head.z[:, None], head.c[:, None]
    weighted = head.beta[:, None] * u
    gz = (head.alpha[:, None] * u).sum(-1, keepdim=True) * z + weighted @ c
    gc = (head.gamma[:, None] * u).sum(-2)[..., None] * c + weighted.mT @ z
    return torch.cat([head.mean.mT[:, None] @ gc, gz], 2)


def head_vjp_per_query(head: Head, u: Tensor) -> tuple[Tensor, Tensor]:
    """`head_vjp` of cotangents of one query each, u [T, n, r, C]: of the support embeddings [T, n, r, S, D], and of
    that query's own [T, n, r, D]."""
    z, c = head.z[:, :, None], head.c[:, None]
    weighted = head.beta[:, :, None] * u
    gz = (head.alpha[:, :, None] * u).sum(-1, keepdim=True) * z + weighted @ c
    gc = (head.gamma[:, :, None] * u)[..., None] * c[:, :, None] + weighted[..., None] * z[..., None, :]
    return head.mean.mT[:, None, None] @ gc, gz


def head_hvp(
    z: Tensor, labels: Tensor, dz: Tensor, targets: Tensor, ways: int, distance: str, scale: float
) -> tuple[Tensor, Tensor]:
    """∇_z L [T, S + n, D] of the mean cross-entropy, and ∇²_z L dz for dz [T, K, S + n, D].

    The head is small beside an encoder: torch.func differentiates it, forward over reverse.
    """
    S = labels.shape[1]

    def loss(z: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        prototypes = class_means(z[:S], labels, ways)
        return F.cross_entropy(prototype_logits(z[S:], prototypes, distance, scale), targets)

    slope = grad(loss)

    def task(z: Tensor, labels: Tensor, targets: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        def along(d: Tensor) -> Tensor:
            return jvp(lambda z: slope(z, labels, targets), (z,), (d,))[1]

        return slope(z, labels, targets), vmap(along)(dz)

    with FORWARD_MODE:
        g, dg = vmap(task)(z, labels, targets, dz)
    return g.detach(), dg.detach()
