"""The ProtoNet head as a differentiable function: class means and distance logits (Snell et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import LearnerError

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
