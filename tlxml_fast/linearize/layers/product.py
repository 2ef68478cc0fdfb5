"""Layers that are bilinear in input and weight: y = out(lift(x) · kernel(w)) + b, with linear lift, kernel and out.

`lift` makes the input a stack of matrices V [B, T, R, K, I] (B products a task, R rows, I channels), `kernel` the
weight U [B, T, I, O] and `out` the products M [B, T, R, K, O] the output: for a linear layer all three are views, for
a convolution patches, or Winograd's tiles. Whatever they are, the six products of first and second derivatives are
matrix products between them and their adjoints:

    ẏ = out(V̇ U + V U̇)      x̄ = liftᵀ(M̄ Uᵀ)      w̄ = kernelᵀ(Vᵀ M̄)      M̄ = outᵀ(ȳ)
    ẋ̄ = liftᵀ(Ṁ̄ Uᵀ + M̄ U̇ᵀ)                      ẇ̄ = kernelᵀ(Vᵀ Ṁ̄ + V̇ᵀ M̄)

K tangents of the weight lie beside each other as K·O columns, so that they share V in one product.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ...ops.stacked_mm import stacked_mm
from ..hyperdual import Hyper, bilinear
from .base import Cotangents, Layer, Named


@dataclass
class Saved:
    """The input with a K of one, [T, N, ..., 1, C], and the lifted weight, [B, T or 1, I, O]."""

    x: Tensor
    U: Tensor
    U_back: Tensor | None = None
    """The same, as a device's products with its transpose read it, once one has."""


@dataclass
class Kept:
    """The tangents that came in: of the input, and the weight's lifted, [B, T or 1, I, K, O]."""

    dx: Tensor | None
    dU: Tensor | None
    K: int | None
    """How many there are; None if both are zero."""


class Product(Layer):
    """The products and their chain; subclasses say what lifting is."""

    def __init__(self, weight: str, bias: str | None, shift_is_absorbed: bool = False):
        self.weight, self.bias = weight, bias
        self.names = (weight,) if bias is None else (weight, bias)
        # A normalisation by the batch's own statistics follows: it takes the mean off again, so that the bias
        # changes nothing, and its derivatives are zero.
        self.absorbed = shift_is_absorbed

    precision = "fp32"
    """What a device makes products of, one of `ops.convolution.PRECISIONS`; the CPU uses all bits."""

    # ---- what lifting is --------------------------------------------------------------------------------

    @abstractmethod
    def output_space(self, x: Tensor) -> tuple[int, ...]:
        """(N, ...) of the output: all sizes between T and K."""

    @abstractmethod
    def lift(self, x: Tensor) -> Tensor:
        """V: [T, N, ..., K, C] → [B, T, R, K, I]."""

    @abstractmethod
    def lift_t(self, V: Tensor, x: Tensor) -> None:
        """The adjoint, written into x."""

    def out(self, M: Tensor, y: Tensor) -> None:
        """M [B, T, R, K, O] → y [T, N, ..., K, O], written into y."""
        raise NotImplementedError

    @abstractmethod
    def out_t(self, y: Tensor) -> Tensor:
        """Its adjoint."""

    @abstractmethod
    def kernel(self, w: Tensor) -> Tensor:
        """U: w [T, K, *shape] → [B, T, I, K, O]."""

    @abstractmethod
    def kernel_t(self, U: Tensor) -> Tensor:
        """Its adjoint."""

    def packed(self, w: Tensor) -> Tensor:
        """U as the products below take it: w [T, *shape] → [B, T, I, O]."""
        return self.kernel(w[:, None]).squeeze(3)

    def packed_tangents(self, dw: Tensor) -> Tensor:
        """U̇ as they take it: [T, K, *shape] → [B, T, I, K, O]."""
        return self.kernel(dw).contiguous()

    def unpacked(self, gU: Tensor) -> Tensor:
        """w̄ [T, K, *shape] of the Ū that they give."""
        return self.kernel_t(gU)

    def products_in(self, y: Tensor) -> Tensor | None:
        """y seen as M, where `out` changes nothing but the view: products are then written in place."""
        return None

    def chunks(self, x: Tensor, K: int) -> Iterator[slice]:
        """The examples to work on at a time; all at once unless lifting makes much of them."""
        yield slice(0, x.shape[1])

    # ---- the chain --------------------------------------------------------------------------------------

    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, Saved]:
        """y = out(V U) + b."""
        saved = Saved(x.unsqueeze(-2), self.packed(w[self.weight]))
        y = self._push(saved, saved.x, None, 1)
        if self.bias is not None and not self.absorbed:
            y += _along(w[self.bias][:, None], y)
        return y.squeeze(-2), saved

    def tangents(self, dx: Tensor | None, dw: Named) -> Kept:
        """ẋ, and the weight's tangents lifted."""
        dweight = dw.get(self.weight)
        K = dx.shape[-2] if dx is not None else None if dweight is None else dweight.shape[1]
        return Kept(dx, None if dweight is None else self.packed_tangents(dweight), K)

    def bias_tangent(self, dw: Named) -> Tensor | None:
        """ḃ, None where it is zero or changes nothing."""
        return None if self.absorbed or self.bias is None else dw.get(self.bias)

    def jvp(
        self, saved: Saved, dx: Tensor | None, dw: Named, keep: bool = True
    ) -> tuple[Tensor | None, Kept]:
        """ẏ = out(V̇ U + V U̇) + ḃ."""
        kept, dbias = self.tangents(dx, dw), self.bias_tangent(dw)
        dy = None if kept.K is None else self._push(saved, kept.dx, kept.dU, kept.K)
        if dbias is not None:
            if dy is None:
                dy = saved.x.new_zeros(len(saved.x), *self.output_space(saved.x), *dbias.shape[1:])
            dy += _along(dbias, dy)
        return dy, kept

    def vjp(
        self,
        saved: Saved,
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool = False,
        keep: bool = True,
    ) -> Cotangents:
        """x̄ and w̄ = kernelᵀ(Vᵀ M̄), b̄ = Σ ȳ."""
        need_w = self.weight in wanted
        gx, gU = self._pull(saved, gy, None, None, need_x, need_w, total)
        return Cotangents(gx, self.named(gU, gy, wanted, total))

    def hvp(
        self,
        saved: Saved,
        gy: Tensor,
        back: Cotangents,
        kept: Kept,
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """ẋ̄ and ẇ̄ by the product rule."""
        need_w = self.weight in wanted
        dgx, dgU = self._pull(saved, dgy, gy, kept, need_x, need_w, False)
        return Cotangents(dgx, self.named(dgU, dgy, wanted, False))

    # ---- in hyper-dual numbers ------------------------------------------------------------------------

    def hyper_forward(self, w: Mapping[str, Hyper], x: Hyper) -> tuple[Hyper, tuple[Hyper, Hyper, Hyper]]:
        """y = out(V U) + b."""
        V, U = x.map(self.lift), w[self.weight].map(self.kernel)

        def out(M: Tensor) -> Tensor:
            y = M.new_empty(len(x.v), *self.output_space(x.v), *M.shape[-2:])
            into = self.products_in(y)
            if into is None:
                self.out(M, y)
            else:
                into.copy_(M)
            return y

        y = bilinear(_product, V, U).map(out)
        if self.bias is not None:
            # whole, for a part of y may be zero where the bias's is not
            y = y + w[self.bias].map(
                lambda b: _along(b, y.v).expand(*y.v.shape[:-2], *b.shape[-2:]).contiguous()
            )
        return y, (x, V, U)

    def hyper_reverse(self, saved: tuple[Hyper, Hyper, Hyper], gy: Hyper) -> tuple[Hyper, dict[str, Hyper]]:
        """x̄ = liftᵀ(M̄ Uᵀ), w̄ = kernelᵀ(Vᵀ M̄)."""
        x, V, U = saved
        M = gy.map(self.out_t)

        def to_input(part: Tensor) -> Tensor:
            gx = part.new_empty(*x.v.shape[:-2], *part.shape[-2:-1], x.v.shape[-1])
            self.lift_t(part, gx)
            return gx

        gx = bilinear(lambda m, u: _product(m, u.transpose(2, 4)), M, U).map(to_input)
        named = {self.weight: bilinear(_outer, V, M).map(self.kernel_t)}
        if self.bias is not None:
            named[self.bias] = gy.map(lambda g: g.flatten(1, -3).sum(1))
        return gx, named

    # ---- the products -----------------------------------------------------------------------------------

    def _push(self, saved: Saved, dx: Tensor | None, dU: Tensor | None, K: int) -> Tensor:
        """out(lift(dx) U + lift(x) dU)."""
        y = saved.x.new_empty(len(saved.x), *self.output_space(saved.x), K, saved.U.shape[-1])
        for part in self.chunks(saved.x, K):
            self.push_part(saved, dx, dU, part, y[:, part])
        return y

    def push_part(self, saved: Saved, dx: Tensor | None, dU: Tensor | None, part: slice, y: Tensor) -> None:
        """The examples of one chunk, written into y."""
        into = self.products_in(y)
        K, M = y.shape[-2], None
        if dx is not None:
            V = self.lift(dx[:, part])
            M = self._times(V.flatten(2, 3), saved.U, into=into).unflatten(2, (-1, K))
        if dU is not None:
            V = self.lift(saved.x[:, part]).squeeze(3)
            M = self._times(V, dU.flatten(3), M, into).unflatten(3, (K, -1))
        if into is None:
            self.out(M, y)

    def _pull(
        self,
        saved: Saved,
        many: Tensor | None,
        one: Tensor | None,
        kept: Kept | None,
        need_x: bool,
        need_w: bool,
        total: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Cotangents of x and U from K cotangents `many`; `one` cotangent with tangents `kept` adds to both."""
        x = saved.x
        dx, dU = (kept.dx, kept.dU) if kept is not None else (None, None)
        from_weight, from_input = need_x and dU is not None, need_w and dx is not None
        if many is None and not from_weight and not from_input:
            return None, None
        K = many.shape[-2] if many is not None else kept.K
        gx = (
            x.new_empty(*x.shape[:-2], K, x.shape[-1])
            if need_x and (many is not None or from_weight)
            else None
        )
        gU = None
        if from_weight:
            dU_t = dU.permute(0, 1, 4, 3, 2).flatten(3)  # [B, T, O, K·I]
        for part in self.chunks(x, K):
            M = None if many is None else self.out_t(many[:, part])
            M1 = self.out_t(one[:, part]).squeeze(3) if from_weight or from_input else None
            if gx is not None:
                V = None if M is None else self._times(M.flatten(2, 3), saved.U.mT).unflatten(2, (-1, K))
                if from_weight:
                    V = self._times(M1, dU_t, V).unflatten(3, (K, -1))
                self.lift_t(V, gx[:, part])
            if need_w and M is not None:
                gU = _add(gU, self._weight_part(saved, M, part, total))
            if from_input:
                V = self.lift(dx[:, part])
                term = _gram(V.flatten(3), M1, total, self.precision).unflatten(2, (K, -1)).movedim(2, 3)
                gU = _add(gU, term)
        return gx, gU

    def pull_part(
        self, saved: Saved, gy: Tensor, part: slice, gx: Tensor | None, need_w: bool, total: bool
    ) -> Tensor | None:
        """x̄ of one chunk's examples, written into gx if there is one, and their share of Ū."""
        M = self.out_t(gy)
        if gx is not None:
            self.lift_t(self._times(M.flatten(2, 3), saved.U.mT).unflatten(2, (-1, gy.shape[-2])), gx)
        return self._weight_part(saved, M, part, total) if need_w else None

    def _weight_part(self, saved: Saved, M: Tensor, part: slice, total: bool) -> Tensor:
        V = self.lift(saved.x[:, part]).squeeze(3)
        return _gram(V, M.flatten(3), total, self.precision).unflatten(3, (M.shape[3], -1))

    def _times(
        self, a: Tensor, b: Tensor, add_to: Tensor | None = None, into: Tensor | None = None
    ) -> Tensor:
        return _times(a, b, add_to, into, self.precision)

    def named(
        self, gU: Tensor | None, gy: Tensor | None, wanted: frozenset[str], total: bool
    ) -> dict[str, Tensor]:
        """The cotangents of weight and bias by name."""
        found = {}
        if gU is not None:
            found[self.weight] = self.unpacked(gU)
        if self.bias in wanted and gy is not None and not self.absorbed:
            found[self.bias] = gy.flatten(1, -3).sum(1)
            if total:
                found[self.bias] = found[self.bias].sum(0, keepdim=True)
        return found


def _times(
    a: Tensor, b: Tensor, add_to: Tensor | None = None, into: Tensor | None = None, precision: str = "fp32"
) -> Tensor:
    """a b for a [B, T, m, i] and b [B, T or 1, i, o]: added to `add_to` in place, or written into `into`, or new."""
    B, T, m, _ = a.shape
    if b.shape[1] == 1:
        a, b = a.flatten(1, 2), b.squeeze(1)
    else:
        a, b = a.flatten(0, 1), b.flatten(0, 1)
    shape = (*a.shape[:2], b.shape[-1])
    views = (None if x is None else x.view(shape) for x in (add_to, into))
    product = stacked_mm(a, b, *views, precision=precision)
    return product.view(B, T, m, -1)


def _gram(a: Tensor, b: Tensor, total: bool, precision: str = "fp32") -> Tensor:
    """aᵀ b for a [B, T, r, m] and b [B, T, r, o]: [B, T, m, o], or summed over T, [B, 1, m, o]."""
    first = 1 if total else 0
    left, right = a.flatten(first, first + 1).mT, b.flatten(first, first + 1)
    product = stacked_mm(left, right, precision=precision)
    return product.unsqueeze(1) if total else product.unflatten(0, a.shape[:2])


def _product(V: Tensor, U: Tensor) -> Tensor:
    """V [B, T, R, K or 1, I] times U [B, T or 1, I, K or 1, O]: [B, T, R, K, O]."""
    K, L = V.shape[3], U.shape[3]
    if L == 1:
        return _times(V.flatten(2, 3), U.squeeze(3)).unflatten(2, (-1, K))
    if K == 1:
        return _times(V.squeeze(3), U.flatten(3)).unflatten(3, (L, -1))
    raise ValueError("two tangents of K directions have no product")


def _outer(V: Tensor, M: Tensor) -> Tensor:
    """Vᵀ M: V [B, T, R, K or 1, I], M [B, T, R, K or 1, O] → [B, T, I, K, O]."""
    K, L = V.shape[3], M.shape[3]
    if L == 1:
        return _gram(V.flatten(3), M.squeeze(3), False).unflatten(2, (K, -1)).movedim(2, 3)
    return _gram(V.squeeze(3), M.flatten(3), False).unflatten(3, (L, -1))


def _add(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total.add_(term)


def _along(bias: Tensor, y: Tensor) -> Tensor:
    """[T, K, O] to be added to y [T, N, ..., K, O]."""
    return bias.view(len(bias), *[1] * (y.ndim - 3), *bias.shape[1:])
