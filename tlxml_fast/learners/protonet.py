"""Prototypical networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LearnerError
from ..ops.prototypes import DISTANCES, class_means, prototype_logits
from .base import Episode, Learner, Parameters

PROTOTYPES = "prototypes"


class ProtoNet(Learner):
    """Prototypical Networks (Snell et al. 2017): c_c the mean support embedding of class c, logits −scale·d(z, c_c).

    encoder        maps [n, *features] to embeddings; they are flattened to [n, D]
    distance       "sqeuclidean", "euclidean", or "cosine" (logits scale·cos(z, c_c))
    joint_forward  support and query go through the encoder in one batch, as in Snell's code. With batch
                   statistics the prototypes then depend on the query images too, and results say so
    norm           "batch" or "running" statistics in BatchNorm
    scale          the factor on the logits

    θ is the encoder's parameters and the prototypes, [ways, D].
    """

    kind = "protonet"

    def __init__(
        self,
        encoder: nn.Module,
        distance: str = "sqeuclidean",
        joint_forward: bool = True,
        norm: str = "batch",
        *,
        scale: float = 1.0,
    ):
        super().__init__(encoder, norm, "cross_entropy")
        if distance not in DISTANCES:
            raise LearnerError(f"distance is one of {', '.join(DISTANCES)}, not {distance!r}")
        if not scale > 0:
            raise LearnerError(f"scale is positive, not {scale}")
        self.distance, self.joint_forward, self.scale = distance, joint_forward, float(scale)

    def embed(self, omega: Mapping[str, Tensor], episode: Episode) -> tuple[Tensor, Tensor]:
        """Support and query embeddings, [m, D] and [n, D]."""
        if not self.joint_forward:
            return self._encode(omega, episode.support_x), self._encode(omega, episode.query_x)
        z = self._encode(omega, torch.cat([episode.support_x, episode.query_x]))
        return z[: len(episode.support_x)], z[len(episode.support_x) :]

    def adapt(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Parameters:
        """The encoder's parameters as they are, and the prototypes."""
        support_z, _ = self.embed(omega, episode)
        return {**omega, PROTOTYPES: class_means(support_z, episode.support_y, ways)}

    def predict(self, theta: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """Logits of the queries against the prototypes in θ."""
        encoder = {name: p for name, p in theta.items() if name != PROTOTYPES}
        _, query_z = self.embed(encoder, episode)
        return prototype_logits(query_z, theta[PROTOTYPES], self.distance, self.scale)

    def query_logits(self, omega: Mapping[str, Tensor], episode: Episode, ways: int) -> Tensor:
        """`predict` after `adapt`, with one pass through the encoder."""
        support_z, query_z = self.embed(omega, episode)
        prototypes = class_means(support_z, episode.support_y, ways)
        return prototype_logits(query_z, prototypes, self.distance, self.scale)

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, except the encoder."""
        return {
            "learner": self.kind,
            "distance": self.distance,
            "joint_forward": self.joint_forward,
            "norm": self.norm,
            "scale": self.scale,
        }

    def notes(self) -> list[str]:
        """Says where the prototypes depend on the query images."""
        coupled = self.joint_forward and self.norm == "batch" and self.body.has_batch_norm
        more = "support and query share one batch, so the prototypes also depend on the query images"
        return super().notes() + ([more] if coupled else [])

    def _encode(self, omega: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self.body(omega, x).flatten(1)
