"""A convolution with the normalisation, activation and pool that follow it, a few images at a time.

At full resolution a block's tangents are its largest arrays, and the pool throws most of them away. Chunk by chunk they
stay in the cache: in the JVP only the winners and the sums for the batch statistics leave a chunk, in the VJP the
dense cotangent is made for a chunk and used at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...ops import norm_act_pool as op
from ..hyperdual import Hyper
from .base import Cotangents, Layer, Named
from .convolution import Convolution
from .norm_act_pool import NormActPool
from .product import Kept


class ConvBlock(Layer):
    """y = pool(act(norm(conv(x)))). Its HVP keeps tangents at full resolution: it runs on few images, a support set."""

    def __init__(self, convolution: Convolution, rest: NormActPool):
        self.convolution, self.rest = convolution, rest
        self.names = (*convolution.names, *rest.names)

    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
        """One after the other."""
        y, first = self.convolution.forward(w, x)
        y, second = self.rest.forward(w, y)
        return y, (first, second)

    def jvp(
        self, saved: tuple[Any, Any], dx: Tensor | None, dw: Named, keep: bool = True
    ) -> tuple[Tensor | None, Any]:
        """ẏ; in chunks unless it is kept for `hvp`."""
        first, second = saved
        if keep:
            dy, kept = self.convolution.jvp(first, dx, dw)
            dy, kept_rest = self.rest.jvp(second, dy, dw)
            return dy, (kept, kept_rest)
        conv = self.convolution
        tangents = conv.tangents(dx, dw)
        dbias = conv.bias_tangent(dw)
        if (tangents.dx is None and tangents.dU is None) or (dbias is not None):
            dy, _ = conv.jvp(first, dx, dw)
            return self.rest.jvp(second, dy, dw)[0], None
        K = tangents.K
        space = conv.output_space(first.x)
        chosen, sums = [], None
        for part in conv.chunks(first.x, K):
            count = part.stop - part.start
            y = first.x.new_empty(len(first.x), count, *space[1:], K, first.U.shape[-1])
            conv.push_part(first, tangents.dx, tangents.dU, part, y)
            at_winners, more = op.norm_act_pool_gather(second.images(part), y)
            chosen.append(at_winners)
            if more is not None:
                sums = more if sums is None else sums.add_(more)
        chosen = chosen[0] if len(chosen) == 1 else torch.cat(chosen, 1)
        moments = self.rest.moments(chosen, sums)
        return op.norm_act_pool_jvp(
            second, chosen, moments, *self.rest.affine_tangents(second, dw), in_place=True
        ), None

    def vjp(
        self,
        saved: tuple[Any, Any],
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool,
        keep: bool = True,
    ) -> Cotangents:
        """x̄ and w̄; in chunks unless they are kept for `hvp`."""
        first, second = saved
        conv = self.convolution
        gy = gy.contiguous()
        if keep or (conv.bias in wanted and not conv.absorbed):
            middle = self.rest.vjp(second, gy, wanted, True, total)
            back = conv.vjp(first, middle.x, wanted, need_x, total)
            return Cotangents(back.x, {**middle.parameters, **back.parameters}, (middle, back))
        gaffine = op.norm_act_pool_affine(second, gy)
        K, x = gy.shape[-2], first.x
        gx = x.new_empty(*x.shape[:-2], K, x.shape[-1]) if need_x else None
        need_w, gU = conv.weight in wanted, None
        for part in conv.chunks(x, K):
            dense = op.norm_act_pool_vjp(second.images(part), gy[:, part], gaffine)
            share = conv.pull_part(first, dense, part, None if gx is None else gx[:, part], need_w, total)
            gU = share if gU is None else gU.add_(share)
        return Cotangents(
            gx, {**self.rest.named(gaffine, wanted, total), **conv.named(gU, None, wanted, total)}
        )

    def hvp(
        self,
        saved: tuple[Any, Any],
        gy: Tensor,
        back: Cotangents,
        kept: tuple[Kept, Any],
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """One after the other, backwards."""
        middle, before = back.kept
        dmiddle = self.rest.hvp(saved[1], gy, middle, kept[1], dgy, wanted, True)
        result = self.convolution.hvp(saved[0], middle.x, before, kept[0], dmiddle.x, wanted, need_x)
        return Cotangents(result.x, {**dmiddle.parameters, **result.parameters})

    def hyper_forward(self, w: Mapping[str, Hyper], x: Hyper) -> tuple[Hyper, tuple[Any, Any]]:
        """One after the other."""
        y, first = self.convolution.hyper_forward(w, x)
        y, second = self.rest.hyper_forward(w, y)
        return y, (first, second)

    def hyper_reverse(self, saved: tuple[Any, Any], gy: Hyper) -> tuple[Hyper, dict[str, Hyper]]:
        """One after the other, backwards."""
        gy, named = self.rest.hyper_reverse(saved[1], gy)
        gx, more = self.convolution.hyper_reverse(saved[0], gy)
        return gx, {**named, **more}
