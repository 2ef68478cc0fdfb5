"""BatchNorm, an activation and a max pool, any of the three left out, as one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops import norm_act_pool as op
from ...ops.norm_act_pool import Pool, Primal
from ..hyperdual import Hyper
from .activations import SMOOTH
from .base import Cotangents, Layer, Named


@dataclass(frozen=True)
class Norm:
    """BatchNorm: the names of its affine parameters and, where its statistics are constants, of those."""

    weight: str | None
    bias: str | None
    eps: float
    running_mean: str | None = None
    running_var: str | None = None


@dataclass
class Kept:
    """The tangents that came in; of the first, what is at winners, and its moments."""

    dx: Tensor
    chosen: Tensor
    moments: Tensor
    dgamma: Tensor | None
    dbeta: Tensor | None


@dataclass
class HyperSaved:
    """What the reverse pass in hyper-dual numbers needs."""

    primal: Primal
    gamma: Hyper
    rstd: Hyper
    x_hat: Hyper
    at: Hyper
    """x̂ at the winners."""
    slope: Hyper


class NormActPool(Layer):
    """y = pool(act(norm(x))).

    act   None, ("leak", slope) for ReLU (0) and LeakyReLU, or the name of a smooth activation, which is not pooled
    """

    def __init__(self, norm: Norm | None, act: tuple[str, float] | str | None, pool: Pool | None = None):
        self.norm, self.act, self.pool = norm, act, pool or Pool()
        self.smooth = SMOOTH[act] if isinstance(act, str) else None
        self.leak = 1.0 if act is None or isinstance(act, str) else act[1]
        self.names = tuple(
            name
            for name in ((norm.weight, norm.bias, norm.running_mean, norm.running_var) if norm else ())
            if name is not None
        )

    @property
    def is_activation(self) -> bool:
        """Whether it is an activation and nothing else."""
        return self.act is not None and self.norm is None and self.pool == Pool()

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether its norm takes the statistics of the examples given."""
        return self.norm is not None and self.norm.running_mean is None

    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, Primal]:
        """y, and the op's `Primal`."""
        image = _image(x)
        T, C = image.shape[0], image.shape[-1]
        one, zero = image.new_ones(1, C), image.new_zeros(1, C)
        mean, rstd, gamma, beta, inverse_count = zero, one, one, zero, 0.0
        if self.norm is not None:
            gamma = w[self.norm.weight] if self.norm.weight is not None else one
            beta = w[self.norm.bias] if self.norm.bias is not None else zero
            if self.norm.running_mean is not None:
                mean = w[self.norm.running_mean]
                rstd = (w[self.norm.running_var] + self.norm.eps).rsqrt()
            else:
                mean, variance = op.channel_moments(image)
                rstd, inverse_count = (variance + self.norm.eps).rsqrt(), C / image[0].numel()
        y, primal = op.norm_act_pool(
            image,
            *(v.expand(T, C).contiguous() for v in (mean, rstd, gamma, beta)),
            leak=self.leak,
            pool=self.pool,
            inverse_count=inverse_count,
        )
        primal.vectors = x.ndim == 3
        if self.smooth is not None:
            y, primal.slope, primal.curve, _ = self.smooth(y)
        return _like(y, x), primal

    def jvp(
        self, saved: Primal, dx: Tensor | None, dw: Named, keep: bool = True
    ) -> tuple[Tensor | None, Kept | None]:
        """ẏ."""
        dgamma, dbeta = self.affine_tangents(saved, dw)
        if dx is None and dgamma is None and dbeta is None:
            return None, None
        if dx is None:
            K = next(v for v in (dgamma, dbeta) if v is not None).shape[1]
            image = saved.x.new_zeros(*saved.x.shape[:-1], K, saved.x.shape[-1])
        else:
            image = _image(dx, 6)
        chosen, moments = op.norm_act_pool_gather(saved, image)
        moments = self.moments(chosen, moments)
        dy = op.norm_act_pool_jvp(saved, chosen, moments, dgamma, dbeta)
        return (dy.squeeze((2, 3)) if saved.vectors else dy), Kept(image, chosen, moments, dgamma, dbeta)

    def vjp(
        self,
        saved: Primal,
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool = False,
        keep: bool = True,
    ) -> Cotangents:
        """x̄, γ̄ and β̄."""
        image = _image(gy, 6)
        gaffine = op.norm_act_pool_affine(saved, image)
        gx = op.norm_act_pool_vjp(saved, image, gaffine)
        return Cotangents(_like(gx, gy), self.named(gaffine, wanted, total), (gx, gaffine))

    def hvp(
        self,
        saved: Primal,
        gy: Tensor,
        back: Cotangents,
        kept: Kept | None,
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """The tangents of all three."""
        if kept is None:
            if dgy is None:
                return Cotangents(None)
            return self.vjp(saved, dgy, wanted, need_x, False)
        image = _image(gy, 6)
        seed = torch.zeros_like(image.expand(*image.shape[:4], kept.dx.shape[4], -1)) if dgy is None else dgy
        dgx, dgaffine = op.norm_act_pool_hvp(
            saved, image, *back.kept, _image(seed, 6),
            kept.dx, kept.chosen, kept.moments, kept.dgamma, kept.dbeta,
        )  # fmt: skip
        return Cotangents(_like(dgx, gy), self.named(dgaffine, wanted, False))

    def hyper_forward(self, w: Mapping[str, Hyper], x: Hyper) -> tuple[Hyper, HyperSaved]:
        """y = act(z) at the winners, z = γx̂ + β; the winners and slopes of the kinks are v's."""
        image = x.map(lambda part: _image(part, 6))
        plain = {name: value.v.squeeze(1) for name, value in w.items() if name in self.names}
        _, primal = self.forward(plain, image.v.squeeze(4))
        one = Hyper(image.v.new_ones(1, 1, 1, 1, 1, image.v.shape[-1]))
        gamma = beta = None
        if self.norm is not None:
            gamma, beta = (
                None if name is None else w[name].map(op.on_channels)
                for name in (self.norm.weight, self.norm.bias)
            )
        gamma = one if gamma is None else gamma
        rstd, centred = Hyper(op.on_channels(primal.rstd[:, None])), image
        if primal.inverse_count:
            centred = image - _mean(image)
            variance = _mean(centred * centred)
            r = (variance.v + self.norm.eps).rsqrt()
            rstd = variance.apply(r, -0.5 * r**3, 0.75 * r**5)
        elif self.norm is not None:
            centred = Hyper(image.v - op.on_channels(primal.mean[:, None]), image.a, image.b, image.ab)
        x_hat = centred * rstd
        at = x_hat.map(lambda part: op.at_winners(primal, part))
        z = gamma * at
        if beta is not None:
            z = z + beta
        kink = primal.slope[..., None, :]
        if self.smooth is None:
            y, slope = (
                z.apply(torch.where(z.v > 0, z.v, self.leak * z.v), kink, torch.zeros_like(kink)),
                Hyper(kink),
            )
        else:
            value, first, second, third = self.smooth(z.v)
            y, slope = z.apply(value, first, second), z.apply(first, second, third)
        return y.map(lambda part: _like(part, x.v, 5)), HyperSaved(primal, gamma, rstd, x_hat, at, slope)

    def hyper_reverse(self, saved: HyperSaved, gy: Hyper) -> tuple[Hyper, dict[str, Hyper]]:
        """x̄ = γr(s − β̄/M − x̂γ̄/M) of s = slope·ȳ, γ̄ = Σ s x̂, β̄ = Σ s."""
        s = saved.slope * gy.map(lambda part: _image(part, 6))
        gbeta, ggamma = _total(s), _total(s * saved.at)
        dense = s.map(lambda part: op.scatter(saved.primal, part))
        share = saved.primal.inverse_count
        if share:
            dense = dense - gbeta.scale(share) - (saved.x_hat * ggamma).scale(share)
        gx = (saved.gamma * saved.rstd * dense).map(lambda part: _like(part, gy.v, 5))
        named = {}
        if self.norm is not None:
            for name, g in ((self.norm.weight, ggamma), (self.norm.bias, gbeta)):
                if name is not None:
                    named[name] = g.map(lambda part: part[:, 0, 0, 0])
        return gx, named

    def affine_tangents(self, saved: Primal, dw: Named) -> tuple[Tensor | None, Tensor | None]:
        """γ̇ and β̇, [T, K, C]; None where zero."""
        if self.norm is None:
            return None, None
        T = len(saved.x)
        given = (dw.get(self.norm.weight), dw.get(self.norm.bias))
        return tuple(None if v is None else op.of_tasks(v, T) for v in given)

    @staticmethod
    def moments(chosen: Tensor, found: Tensor | None) -> Tensor:
        """⟨ẋ⟩ and ⟨x̂ẋ⟩, [T, P, 2, K, C]; zero where statistics are constants."""
        if found is not None:
            return found
        return chosen.new_zeros(len(chosen), 1, 2, *chosen.shape[4:])

    def named(self, gaffine: Tensor, wanted: frozenset[str], total: bool) -> dict[str, Tensor]:
        """The cotangents of γ and β by name."""
        if self.norm is None:
            return {}
        found = gaffine.sum((0, 1))[None] if total else gaffine.sum(1)
        pair = zip((self.norm.bias, self.norm.weight), found.unbind(1), strict=True)
        return {name: g for name, g in pair if name in wanted}


def _image(x: Tensor, dims: int = 5) -> Tensor:
    """Vectors as images of one pixel."""
    return (x if x.ndim == dims else x[:, :, None, None]).contiguous()


def _like(image: Tensor, x: Tensor, dims: int = 5) -> Tensor:
    """Vectors again, where x are vectors."""
    return image if x.ndim >= dims else image.squeeze((2, 3))


def _total(x: Hyper) -> Hyper:
    return x.map(lambda part: part.sum((1, 2, 3), keepdim=True))


def _mean(x: Hyper) -> Hyper:
    return x.map(lambda part: part.mean((1, 2, 3), keepdim=True))
