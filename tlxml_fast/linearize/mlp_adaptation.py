"""MAML's passes on a small multilayer perceptron: whole tasks in one kernel (ops/maml_mlp.py).

Layer by layer such a network is microseconds of arithmetic between calls; in one kernel a task never leaves the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..learners import MAML
from ..ops._dispatch import backend_of
from ..ops.maml_mlp import (
    LOSSES,
    MAX_LAYERS,
    Adapting,
    Mlp,
    MlpLayer,
    maml_mlp_adaptation,
    maml_mlp_gnvp,
    maml_mlp_gradients,
    maml_mlp_hvp,
    maml_mlp_jvp,
    maml_mlp_logits,
    maml_mlp_vjp,
    why_not_on_devices,
)
from .adaptation import Adaptation
from .batch import Batch
from .layers import Flatten, Linear, NormActPool
from .parameters import Layout
from .plan import Plan

# The kernel is several times faster than products of matrices above this too; but it holds θ_s of as many tasks as
# a vector register has lanes, 50 MB a thread here for five steps.
MAX_PARAMETERS = 1 << 17


def mlp_of(learner: MAML, plan: Plan, layout: Layout) -> Mlp | str:
    """The network that the plan is, or why the kernel cannot run it."""
    if layout.size > MAX_PARAMETERS:
        return f"{layout.size:,} parameters are more than {MAX_PARAMETERS:,}"
    if learner.learn_inner_lr:
        return "the rates are learned"
    if learner.loss.name not in LOSSES:
        return f"the loss is {learner.loss.name}"
    starts, at = {}, 0
    for name, size in zip(layout.shapes, layout.sizes, strict=True):
        starts[name], at = at, at + size
    layers: list[MlpLayer] = []
    for i, step in enumerate(plan.steps):
        layer = step.layer
        if step.inputs != (i,):
            return "it has branches"
        if isinstance(layer, Flatten) and not layers:
            continue
        if isinstance(layer, Linear) and all(name in starts for name in layer.names):
            outputs, inputs = layout.shapes[layer.weight]
            bias = None if layer.bias is None else starts[layer.bias]
            adapted = not learner.rates.keys().isdisjoint(layer.names)
            layers.append(MlpLayer(inputs, outputs, starts[layer.weight], bias, adapted=adapted))
        elif isinstance(layer, NormActPool) and layers and layer.is_activation:
            if layers[-1][4:6] != ("leak", 1.0):
                return "two activations follow each other"
            smooth = isinstance(layer.act, str)
            layers[-1] = layers[-1]._replace(
                activation=layer.act if smooth else "leak", leak=1.0 if smooth else layer.leak
            )
        else:
            return f"{step.label} is no layer of an MLP"
    if len({layer.weight for layer in layers}) < len(layers):
        return "a layer is used twice"
    if not 1 <= len(layers) <= MAX_LAYERS:
        return f"it has {len(layers)} layers"
    mlp = Mlp(layers)
    return (backend_of(layout.device) == "triton" and why_not_on_devices(mlp)) or mlp


class MlpAdaptation(Adaptation):
    """The passes of a MAML learner whose module is an MLP; on a device the exact Hessian's go layer by layer."""

    def __init__(self, learner: MAML, plan: Plan, layout: Layout, ways: int, mlp: Mlp):
        super().__init__(learner, plan, layout, ways)
        self.mlp = mlp
        self.third_order = backend_of(layout.device) != "triton"
        """Whether the kernel has the exact Hessian."""
        self.separable = False  # the kernel itself passes over queries whose cotangents are zero

    def _adapting(self, omega: Tensor, batch: Batch) -> Adapting:
        return Adapting(
            self.mlp,
            batch.support_x.flatten(2).contiguous(),
            self._targets(batch.support_y, omega),
            batch.query_x.flatten(2).contiguous(),
            omega.contiguous(),
            self._rates(omega),
            self.learner.inner_steps,
            self.loss.name,
        )

    def _targets(self, y: Tensor, like: Tensor) -> Tensor:
        """[T, N] → [T, N, C], one-hot; regression targets as they are."""
        C = self.mlp.layers[-1].outputs
        if self.loss.regression:
            return y.reshape(*y.shape[:2], C).contiguous()
        return (y[..., None] == torch.arange(C, device=y.device)).to(like.dtype)

    def numbers_a_vector(self, omega: Tensor, batch: Batch) -> int:
        """About how many numbers each vector takes: of every task its cotangents and its result."""
        n, C = batch.query_x.shape[1], self.mlp.layers[-1].outputs
        own = len(batch) * (self.layout.size + n * C)
        return own if self.third_order else max(own, super().numbers_a_vector(omega, batch))

    def logits(self, omega: Tensor, batch: Batch) -> Tensor:
        """f, [T, n, C]."""
        return maml_mlp_logits(self._adapting(omega, batch))

    def jvp(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """J_t v_k: V [K, q] → [T, K, n, C]."""
        return maml_mlp_jvp(self._adapting(omega, batch), V)

    def vjp(self, omega: Tensor, batch: Batch, U: Tensor) -> Tensor:
        """J_tᵀ u_tk: U [T, K, n, C] → [T, K, q]."""
        return maml_mlp_vjp(self._adapting(omega, batch), U)

    def adaptation(self, omega: Tensor, batch: Batch, V: Tensor) -> Tensor:
        """(∂θ_t/∂ω) v_k, [T, K, p]."""
        return maml_mlp_adaptation(self._adapting(omega, batch), V)

    def gradients(self, omega: Tensor, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        """f [T, n, C] and ∇_ω L_t [T, q], in one go."""
        return maml_mlp_gradients(self._adapting(omega, batch), self._targets(targets, omega))

    def gnvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor) -> Tensor:
        """Σ_t w_t J_tᵀ Λ_t J_t v_k, [K, q]."""
        return maml_mlp_gnvp(self._adapting(omega, batch), V, weights)

    def no_third_derivative(self) -> str | None:
        """The kernel has it, or the layers."""
        return None if self.third_order else super().no_third_derivative()

    def hvp(self, omega: Tensor, batch: Batch, V: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """Σ_t w_t ∇²L_t v_k, [K, q]."""
        if not self.third_order:
            return super().hvp(omega, batch, V, weights, targets)
        return maml_mlp_hvp(self._adapting(omega, batch), V, weights, self._targets(targets, omega))
