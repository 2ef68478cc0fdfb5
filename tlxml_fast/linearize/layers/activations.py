"""Activations with their derivatives, elementwise: two for the engine's passes, a third for the exact Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# act(z), act′(z), act″(z), act‴(z)
Derivatives = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def gelu(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """zΦ(z), Φ + zφ, φ(2 − z²), φ(z³ − 4z), with Φ and φ the normal distribution and density."""
    cumulative = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    value, slope = z * cumulative, cumulative + z * density
    return value, slope, density * (2 - z * z), density * z * (z * z - 4)


def tanh(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t, 1 − t², −2t(1 − t²), (6t² − 2)(1 − t²)."""
    t = torch.tanh(z)
    slope = 1 - t * t
    return t, slope, -2 * t * slope, (6 * t * t - 2) * slope


def sigmoid(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s, s(1 − s), s(1 − s)(1 − 2s), s(1 − s)(1 − 6s(1 − s))."""
    s = torch.sigmoid(z)
    slope = s * (1 - s)
    return s, slope, slope * (1 - 2 * s), slope * (1 - 6 * slope)


SMOOTH: dict[str, Derivatives] = {"gelu": gelu, "tanh": tanh, "sigmoid": sigmoid}
