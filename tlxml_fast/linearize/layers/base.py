"""What every layer of a plan is: a function of an input and parameters, with the derivatives the engine chains.

Arrays are channels last: examples [T, N, C] or [T, N, H, W, C] for T tasks of N examples. K tangents or cotangents
of one lie beside each other at every position: [T, N, ..., K, C]. So a tangent is an image with K·C channels, all K
pass through one matrix product, and elementwise work runs over long contiguous rows. Parameters are [T, *shape], or
[1, *shape] where tasks share them, their tangents [T or 1, K, *shape], their cotangents [T, K, *shape].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..hyperdual import Hyper

Named = Mapping[str, Tensor]


@dataclass
class Cotangents:
    """What one layer gives back in reverse: of its input (None where nobody asks) and of its parameters."""

    x: Tensor | None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    kept: Any = None
    """What `hvp` needs of this pass."""


class Layer(ABC):
    """y = φ(x, w). A zero tangent or cotangent is None; `wanted` names the parameters whose cotangents are wanted."""

    names: tuple[str, ...] = ()
    """The parameters and constants it reads."""

    @abstractmethod
    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, Any]:
        """y, and what the derivatives need."""

    @abstractmethod
    def jvp(self, saved: Any, dx: Tensor | None, dw: Named, keep: bool = True) -> tuple[Tensor | None, Any]:
        """ẏ along ẋ and ẇ, and, where it is to be kept, what `hvp` needs of this pass."""

    @abstractmethod
    def vjp(
        self,
        saved: Any,
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool = False,
        keep: bool = True,
    ) -> Cotangents:
        """x̄ and w̄ of ȳ; with `total`, those of parameters that tasks share are summed over tasks, [1, K, …]."""

    @abstractmethod
    def hvp(
        self,
        saved: Any,
        gy: Tensor,
        back: Cotangents,
        kept: Any,
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """The tangents of what `vjp` gives, at one cotangent gy [T, N, ..., 1, C], along ẋ, ẇ (`kept`) and ȳ̇.

        `back` is what `vjp` gave for gy. A None in the result is zero.
        """

    third_order: bool = True
    """Whether it has the two passes below."""

    def hyper_forward(self, w: Mapping[str, Hyper], x: Hyper) -> tuple[Hyper, Any]:
        """y in hyper-dual numbers, all components [T, N, ..., K or 1, C]; and what `hyper_reverse` needs."""
        raise NotImplementedError

    def hyper_reverse(self, saved: Any, gy: Hyper) -> tuple[Hyper, dict[str, Hyper]]:
        """x̄ and w̄ in hyper-dual numbers."""
        raise NotImplementedError


class LinearLayer(Layer):
    """y = A x with a constant A."""

    @abstractmethod
    def apply(self, x: Tensor) -> tuple[Tensor, Any]:
        """A x for x [T, N, ..., K, C], and what `adjoint` needs."""

    @abstractmethod
    def adjoint(self, saved: Any, gy: Tensor) -> Tensor:
        """Aᵀ ȳ."""

    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, Any]:
        """A x."""
        y, saved = self.apply(x[..., None, :])
        return y.squeeze(-2), saved

    def jvp(self, saved: Any, dx: Tensor | None, dw: Named, keep: bool = True) -> tuple[Tensor | None, Any]:
        """A ẋ."""
        return (None if dx is None else self.apply(dx)[0]), None

    def vjp(
        self,
        saved: Any,
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool = False,
        keep: bool = True,
    ) -> Cotangents:
        """Aᵀ ȳ."""
        return Cotangents(self.adjoint(saved, gy) if need_x else None)

    def hyper_forward(self, w: Mapping[str, Hyper], x: Hyper) -> tuple[Hyper, Any]:
        """A x."""
        saved = self.apply(x.v)[1]
        return x.map(lambda part: self.apply(part)[0]), saved

    def hyper_reverse(self, saved: Any, gy: Hyper) -> tuple[Hyper, dict[str, Hyper]]:
        """Aᵀ ȳ."""
        return gy.map(lambda part: self.adjoint(saved, part)), {}

    def hvp(
        self,
        saved: Any,
        gy: Tensor,
        back: Cotangents,
        kept: Any,
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """Aᵀ ȳ̇."""
        return Cotangents(self.adjoint(saved, dgy) if need_x and dgy is not None else None)
