"""The native backend: the heads in compiled kernels, the body's derivatives by torch.func."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp, vjp

from ..learners import ProtoNet
from ..ops import proto_gn
from ..parallel import FORWARD_MODE
from .reference import ReferenceLinearization


class NativeLinearization(ReferenceLinearization):
    """Gauss-Newton products whose Λ (`softmax_gn`) or whole ProtoNet head (`proto_gn`) is a compiled kernel.

    For a ProtoNet, JᵀΛJv = J_encᵀ (J_headᵀ Λ J_head) J_enc v: the head never becomes logits in Python. The
    encoder, and every other product, runs as on the reference.
    """

    def gnvp_task(self, t: int, V: Tensor) -> Tensor:
        """J_tᵀ Λ_t J_t v_k with a compiled head."""
        if self.learner.loss.regression:
            return super().gnvp_task(t, V)
        head = "proto_gn" if isinstance(self.learner, ProtoNet) else "softmax_gn"
        self.report.decisions["Gauss-Newton products"] = (
            f"compiled {head}, the model's derivatives by torch.func"
        )
        if not isinstance(self.learner, ProtoNet):
            return self.vjp_task(t, self._curve(t, self.jvp_task(t, V), "native"))
        learner, episode = self.learner, self.episodes[t]
        split = len(episode.support_x)

        def embed(omega: Tensor) -> Tensor:
            return torch.cat(learner.embed(self.flat.unflatten(omega), episode))

        z, pull = vjp(embed, self.omega)
        z = z.detach()
        with FORWARD_MODE:
            dz = self._over_vectors("embedding jvp", lambda v: jvp(embed, (self.omega,), (v,))[1], V)
        gsupport, gquery = proto_gn(
            z[None, :split],
            z[None, split:],
            episode.support_y[None],
            dz[None, :, :split],
            dz[None, :, split:],
            ways=self.ways,
            distance=learner.distance,
            scale=learner.scale,
            backend="native",
        )
        cotangents = torch.cat([gsupport[0], gquery[0]], dim=1)
        return self._over_vectors("embedding vjp", lambda u: pull(u)[0], cotangents)
