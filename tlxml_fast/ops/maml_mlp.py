"""MAML on a multilayer perceptron, whole tasks at a time.

θ_{s+1} = θ_s − D ∇L_S(θ_s) from θ_0 = ω, D = diag(rates), L_S the mean support loss; f is the adapted network's
logits on the query set and J = ∂f/∂ω. The kernel keeps the chain of one task's Hessian-vector products in the cache:

    J v = ∂f/∂θ · Π_s (I − D H_s) v        Jᵀu = Π_s (I − H_s D) · (∂f/∂θ)ᵀ u        (s backwards in the second)

On CUDA devices a program works on a task and some of the vectors (kernels/maml_mlp.py). The engine goes layer by layer
there for the exact Hessian, layers of more than 64 units and deep networks of wide layers; these functions themselves
run on the reference then.

T tasks, K vectors, S support examples, n queries, F inputs, C outputs, P parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from tlxml_fast.errors import FallbackWarning
from tlxml_fast.ops._dispatch import backend_of, has_kernel, launch
from tlxml_fast.profiling import span

ACTIVATIONS = ("leak", "tanh", "sigmoid", "gelu")
LOSSES = ("cross_entropy", "mse")
MAX_LAYERS = 8


class MlpLayer(NamedTuple):
    """h′ = act(W h + b): W [outputs, inputs] begins at `weight` of the P parameters, b at `bias` (None: no bias).

    activation  "leak" (slope `leak` below zero: 0 is ReLU, 1 the identity), "tanh", "sigmoid" or "gelu"
    adapted     whether any of its rates is not zero
    """

    inputs: int
    outputs: int
    weight: int
    bias: int | None
    activation: str = "leak"
    leak: float = 1.0
    adapted: bool = True


class Mlp:
    """The layers, and their table as the kernel reads it."""

    def __init__(self, layers: Sequence[MlpLayer]):
        self.layers = tuple(layers)
        self.table = torch.tensor(
            [
                [
                    layer.inputs,
                    layer.outputs,
                    layer.weight,
                    -1 if layer.bias is None else layer.bias,
                    ACTIVATIONS.index(layer.activation),
                    layer.adapted,
                ]
                for layer in layers
            ]
        )
        self.leaks = torch.tensor([layer.leak for layer in layers], dtype=torch.float64)

    def flops(self, examples: int) -> int:
        """Of one forward pass."""
        return 2 * examples * sum(layer.inputs * layer.outputs for layer in self.layers)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """The outputs at parameters [P]: x [E, F] → [E, C], in plain torch."""
        for layer in self.layers:
            W = theta[layer.weight : layer.weight + layer.outputs * layer.inputs]
            x = x @ W.view(layer.outputs, layer.inputs).mT
            if layer.bias is not None:
                x = x + theta[layer.bias : layer.bias + layer.outputs]
            x = F.leaky_relu(x, layer.leak) if layer.activation == "leak" else _SMOOTH[layer.activation](x)
        return x


_SMOOTH = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu}


@dataclass(frozen=True)
class Adapting:
    """What all functions below share; tensors are contiguous and of one dtype."""

    mlp: Mlp
    support: Tensor
    """[T, S, F]"""
    support_targets: Tensor
    """[T, S, C]: one-hot for cross-entropy."""
    query: Tensor
    """[T, n, F]"""
    omega: Tensor
    """[P]"""
    rates: Tensor
    """[P]"""
    steps: int
    loss: str
    """"cross_entropy" or "mse"."""

    @property
    def outputs(self) -> int:
        """C."""
        return self.support_targets.shape[2]


# ---- the kernel's functions ---------------------------------------------------------------------------------------


def maml_mlp_logits(a: Adapting) -> Tensor:
    """f, [T, n, C]."""
    if not _has_kernel(a):
        return maml_mlp_logits_ref(a)
    logits = a.query.new_empty(*a.query.shape[:2], a.outputs)
    _launch(a, 0, logits=logits)
    return logits


def maml_mlp_jvp(a: Adapting, V: Tensor) -> Tensor:
    """J_t v_k: V [K, P] → [T, K, n, C]."""
    if not _has_kernel(a, V):
        return maml_mlp_jvp_ref(a, V)
    T, n, _ = a.query.shape
    dlogits = V.new_empty(T, len(V), n, a.outputs)
    _launch(a, len(V), V=V.contiguous(), dlogits=dlogits)
    return dlogits


def maml_mlp_adaptation(a: Adapting, V: Tensor) -> Tensor:
    """(∂θ_t/∂ω) v_k, θ_t the adapted parameters: V [K, P] → [T, K, P]."""
    if not _has_kernel(a, V):
        return maml_mlp_adaptation_ref(a, V)
    dtheta = V.new_empty(len(a.query), *V.shape)
    _launch(a, len(V), V=V.contiguous(), dtheta=dtheta)
    return dtheta


def maml_mlp_vjp(a: Adapting, U: Tensor) -> Tensor:
    """J_tᵀ u_tk: U [T, K, n, C] → [T, K, P]. On the CPU, queries at the ends without cotangents are free."""
    if not _has_kernel(a, U):
        return maml_mlp_vjp_ref(a, U)
    pulled = U.new_empty(*U.shape[:2], len(a.omega))
    _launch(a, U.shape[1], U=U.contiguous(), pulled=pulled)
    return pulled


def maml_mlp_gradients(a: Adapting, query_targets: Tensor) -> tuple[Tensor, Tensor]:
    """f [T, n, C], and the gradients of the mean query losses against query_targets [T, n, C]: [T, P]."""
    if not _has_kernel(a, query_targets):
        return maml_mlp_gradients_ref(a, query_targets)
    logits = torch.empty_like(query_targets)
    gradients = a.omega.new_empty(len(logits), 1, len(a.omega))
    _launch(a, 1, query_targets=query_targets.contiguous(), logits=logits, pulled=gradients)
    return logits, gradients[:, 0]


def maml_mlp_gnvp(a: Adapting, V: Tensor, weights: Tensor) -> Tensor:
    """Σ_t w_t J_tᵀ Λ_t J_t v_k, in the order of the tasks: V [K, P], weights [T] → [K, P]."""
    if not _has_kernel(a, V, weights):
        return maml_mlp_gnvp_ref(a, V, weights)
    sums = torch.empty_like(V, memory_format=torch.contiguous_format)
    _launch(a, len(V), V=V.contiguous(), weights=weights.contiguous(), sums=sums)
    return sums


def maml_mlp_hvp(a: Adapting, V: Tensor, weights: Tensor, query_targets: Tensor) -> Tensor:
    """Σ_t w_t ∇²L_t v_k with the exact Hessian of the mean query loss, through adaptation: V [K, P] → [K, P].

    With λ_S = ∇L_Q(θ_S) and λ_s = λ_{s+1} − H D λ_{s+1}, along θ̇:
    λ̇_s = λ̇_{s+1} − H D λ̇_{s+1} − ∇³L_S(θ_s)[θ̇_s, Dλ_{s+1}].
    """
    if not _has_kernel(a, V, weights, query_targets, exact=True):
        return maml_mlp_hvp_ref(a, V, weights, query_targets)
    sums = torch.empty_like(V, memory_format=torch.contiguous_format)
    query_targets, weights = query_targets.contiguous(), weights.contiguous()
    _launch(a, len(V), query_targets, V=V.contiguous(), weights=weights, sums=sums)
    return sums


def _has_kernel(a: Adapting, *vectors: Tensor, exact: bool = False) -> bool:
    """Whether the compiled kernel runs: the Triton kernel does not run every network, and warns of those."""
    if not has_kernel("maml_mlp", a.omega, a.support, a.query, a.rates, *vectors):
        return False
    if backend_of(a.omega.device) != "triton" or not (why := why_not_on_devices(a.mlp, exact)):
        return True
    warnings.warn(f"maml_mlp runs on the slower reference: {why}.", FallbackWarning, stacklevel=3)
    return False


def why_not_on_devices(mlp: Mlp, exact: bool = False) -> str | None:
    """Why the Triton kernel does not run a network, or, if `exact`, its exact Hessian; None if it does."""
    from tlxml_fast.kernels.maml_mlp import covers

    return covers(mlp.table.tolist(), exact)


GIVEN = ("V", "U", "weights", "logits", "dlogits", "dtheta", "pulled", "sums")


def _launch(a: Adapting, K: int, query_targets: Tensor | None = None, **given: Tensor) -> None:
    T, S, _ = a.support.shape
    n = a.query.shape[1]
    exact = query_targets is not None and "sums" in given
    with span("maml_mlp", _flops(a, K, given, exact), dtype=a.omega.dtype):
        launch(
            "maml_mlp", a.support, a.support_targets, a.query, query_targets, a.omega, a.rates,
            a.mlp.table, a.mlp.leaks,
            *(given.get(name) for name in GIVEN),
            T, K, S, n, len(a.omega), len(a.mlp.layers), a.steps, LOSSES.index(a.loss),
        )  # fmt: skip


def _flops(a: Adapting, K: int, given: dict[str, Tensor], exact: bool) -> int:
    """Of the products of matrices, in forward passes s and q over support and query and in their first layers' f and g.

    A gradient is 3s − f, a Hessian-vector product 6s − 4f, a tangent or a pull-back of the query 2q − g.
    """
    T, S, _ = a.support.shape
    n, first = a.query.shape[1], a.mlp.layers[0]
    s, q = a.mlp.flops(S), a.mlp.flops(n)
    f, g = (2 * examples * first.inputs * first.outputs for examples in (S, n))
    directions = ("V" in given) + ("pulled" in given or "sums" in given)
    chain = directions * (a.steps * (6 * s - 4 * f) + 2 * q - g)
    if exact:  # mixed derivatives, 16s − 13f, in place of a product
        chain += a.steps * (10 * s - 9 * f) + 2 * (q - g)
    return T * (a.steps * (3 * s - f) + q + K * chain)


# ---- references ---------------------------------------------------------------------------------------------------


def _adapted(a: Adapting, omega: Tensor, x: Tensor, y: Tensor) -> Tensor:
    def loss(theta: Tensor) -> Tensor:
        return _mean_loss(a, a.mlp(theta, x), y)

    theta = omega
    for _ in range(a.steps):
        theta = theta - a.rates * grad(loss)(theta)
    return theta


def _mean_loss(a: Adapting, f: Tensor, y: Tensor) -> Tensor:
    if a.loss == "mse":
        return (f - y).square().mean()
    return -(y * f.log_softmax(-1)).sum(-1).mean()


def _each(a: Adapting, of: str, *more: Tensor):
    """For every task a function of ω, its logits or its adapted parameters, and the rows of `more`."""
    for x, y, q, *rest in zip(a.support, a.support_targets, a.query, *more, strict=True):

        def function(omega: Tensor, x: Tensor = x, y: Tensor = y, q: Tensor = q) -> Tensor:
            theta = _adapted(a, omega, x, y)
            return a.mlp(theta, q) if of == "logits" else theta

        yield function, *rest


def maml_mlp_logits_ref(a: Adapting) -> Tensor:
    """`maml_mlp_logits` in plain torch."""
    return torch.stack([f(a.omega) for (f,) in _each(a, "logits")])


def _pushed(a: Adapting, of: str, V: Tensor) -> Tensor:
    return torch.stack([vmap(lambda v, f=f: jvp(f, (a.omega,), (v,))[1])(V) for (f,) in _each(a, of)])


def maml_mlp_jvp_ref(a: Adapting, V: Tensor) -> Tensor:
    """`maml_mlp_jvp` by forward mode."""
    return _pushed(a, "logits", V)


def maml_mlp_adaptation_ref(a: Adapting, V: Tensor) -> Tensor:
    """`maml_mlp_adaptation` by forward mode."""
    return _pushed(a, "theta", V)


def maml_mlp_vjp_ref(a: Adapting, U: Tensor) -> Tensor:
    """`maml_mlp_vjp` by reverse mode."""
    return torch.stack([vmap(vjp(f, a.omega)[1])(u)[0] for f, u in _each(a, "logits", U)])


def maml_mlp_gradients_ref(a: Adapting, query_targets: Tensor) -> tuple[Tensor, Tensor]:
    """`maml_mlp_gradients` by reverse mode."""
    gradients = [
        grad(lambda omega, f=f, y=y: _mean_loss(a, f(omega), y))(a.omega)
        for f, y in _each(a, "logits", query_targets)
    ]
    return maml_mlp_logits_ref(a), torch.stack(gradients)


def maml_mlp_gnvp_ref(a: Adapting, V: Tensor, weights: Tensor) -> Tensor:
    """`maml_mlp_gnvp`: jvp, the loss's own second derivative, vjp."""
    f, df = maml_mlp_logits_ref(a), maml_mlp_jvp_ref(a, V)
    y = torch.zeros_like(f)
    y[..., 0] = 1  # whatever it is: the second derivative does not depend on it

    def curved(f: Tensor, y: Tensor, d: Tensor) -> Tensor:
        return jvp(grad(lambda g: _mean_loss(a, g, y)), (f,), (d,))[1]

    u = torch.stack([torch.stack([curved(f[t], y[t], d) for d in df[t]]) for t in range(len(f))])
    return (weights[:, None, None] * maml_mlp_vjp_ref(a, u)).sum(0)


def maml_mlp_hvp_ref(a: Adapting, V: Tensor, weights: Tensor, query_targets: Tensor) -> Tensor:
    """`maml_mlp_hvp`, forward over reverse."""
    total = torch.zeros_like(V)
    for (f, y), w in zip(_each(a, "logits", query_targets), weights, strict=True):
        slope = grad(lambda omega, f=f, y=y: _mean_loss(a, f(omega), y))
        total += w * vmap(lambda v, slope=slope: jvp(slope, (a.omega,), (v,))[1])(V)
    return total


def example(dtype: torch.dtype, generator: torch.Generator) -> tuple[Adapting, dict[str, Tensor]]:
    """A small task of every argument, for self-tests."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    mlp = Mlp([MlpLayer(4, 6, 0, 24, "tanh"), MlpLayer(6, 3, 30, 48)])
    y, query_y = (
        (torch.arange(n)[:, None] % 3 == torch.arange(3)).to(dtype).expand(2, n, 3).contiguous()
        for n in (6, 5)
    )
    a = Adapting(
        mlp, normal(2, 6, 4), y, normal(2, 5, 4), normal(51), torch.full((51,), 0.3).to(dtype), 2, LOSSES[0]
    )
    weights = torch.tensor([0.5, 2.0], dtype=dtype)
    return a, {"V": normal(3, 51), "U": normal(2, 3, 5, 3), "weights": weights, "query_targets": query_y}


def examples(dtype: torch.dtype, generator: torch.Generator) -> dict[str, tuple]:
    """Small calls for self-tests, by name: function, reference, arguments."""
    a, given = example(dtype, generator)
    V, U, weights, targets = (given[name] for name in ("V", "U", "weights", "query_targets"))
    return {
        "maml_mlp_logits": (maml_mlp_logits, maml_mlp_logits_ref, (a,)),
        "maml_mlp_jvp": (maml_mlp_jvp, maml_mlp_jvp_ref, (a, V)),
        "maml_mlp_adaptation": (maml_mlp_adaptation, maml_mlp_adaptation_ref, (a, V)),
        "maml_mlp_vjp": (maml_mlp_vjp, maml_mlp_vjp_ref, (a, U)),
        "maml_mlp_gradients": (maml_mlp_gradients, maml_mlp_gradients_ref, (a, targets)),
        "maml_mlp_gnvp": (maml_mlp_gnvp, maml_mlp_gnvp_ref, (a, V, weights)),
        "maml_mlp_hvp": (maml_mlp_hvp, maml_mlp_hvp_ref, (a, V, weights, targets)),
    }
