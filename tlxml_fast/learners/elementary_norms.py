"""Normalisation spelled out in elementary operations, so that it can be differentiated to any order.

The exact Hessian through an inner gradient step takes third derivatives. There torch's own batch_norm refuses
in reverse mode, and batch_norm, instance_norm and layer_norm are silently wrong in forward mode (torch 2.14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − μ)/√(σ² + ε)·γ + β with μ, σ² of the batch, or the running ones; x is [n, channels, …]."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    if training:
        mean, variance = _moments(x, [0, *range(2, x.ndim)])
    else:
        mean, variance = running_mean.reshape(shape), running_var.reshape(shape)
    return _scaled((x - mean) * (variance + eps).rsqrt(), weight, bias, shape)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The same with μ, σ² of every example and channel."""
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, variance = _moments(x, list(range(2, x.ndim)))
    return _scaled((x - mean) * (variance + eps).rsqrt(), weight, bias, [1, -1] + [1] * (x.ndim - 2))


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """The same with μ, σ² over the last dimensions."""
    mean, variance = _moments(x, list(range(-len(normalized_shape), 0)))
    return _scaled((x - mean) * (variance + eps).rsqrt(), weight, bias, list(normalized_shape))


SPELLED_OUT: Mapping[Callable[..., Tensor], Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
}


class ElementaryNorms(TorchFunctionMode):
    """Inside, torch.nn.functional's normalisations are those above, whichever layer or function calls them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """`func`, or what it is spelled out as."""
        return SPELLED_OUT.get(func, func)(*args, **(kwargs or {}))


def _moments(x: Tensor, over: list[int]) -> tuple[Tensor, Tensor]:
    if torch.Size(x.shape[d] for d in over).numel() == 1:
        raise ValueError(f"statistics over a single value per channel, got input size {tuple(x.shape)}")
    mean = x.mean(over, keepdim=True)
    return mean, (x - mean).square().mean(over, keepdim=True)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int]) -> Tensor:
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)
