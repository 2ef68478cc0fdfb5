"""LayerNorm, GroupNorm and InstanceNorm: statistics of one example, over all positions and a group of channels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Cotangents, Layer, Named


@dataclass
class Saved:
    """x̂ [T, N, P, 1, g, C/g], r [T, N, 1, 1, g, 1], and γ to multiply with [T, N, P, K, g, C/g]."""

    x_hat: Tensor
    rstd: Tensor
    gamma: Tensor
    space: tuple[int, ...]


@dataclass
class Kept:
    """x̂̇, ⟨x̂ẋ⟩ and γ̇; None where zero."""

    dx_hat: Tensor | None
    moment: Tensor | None
    dgamma: Tensor | None


class GroupNorm(Layer):
    """y = γ (x − μ)/√(σ² + ε) + β with μ, σ² over a group of channels and all positions of an example.

    `groups` counts groups; each channel by itself is an InstanceNorm, all in one with γ and β of every position
    (`per_position`, shaped [C, H, W] or [F]) a LayerNorm.
    """

    third_order = False

    def __init__(
        self, weight: str | None, bias: str | None, groups: int | None, eps: float, per_position: bool = False
    ):
        self.weight, self.bias, self.groups, self.eps, self.per_position = (
            weight,
            bias,
            groups,
            eps,
            per_position,
        )
        self.names = tuple(name for name in (weight, bias) if name is not None)

    def forward(self, w: Named, x: Tensor) -> tuple[Tensor, Saved]:
        """y, x̂ and r."""
        v = self._grouped(x.unsqueeze(-2))
        mean = v.mean((2, 5), keepdim=True)
        rstd = ((v - mean).square().mean((2, 5), keepdim=True) + self.eps).rsqrt()
        x_hat = (v - mean) * rstd
        gamma = x.new_ones(()) if self.weight is None else self._affine(w[self.weight][:, None], x_hat)
        y = gamma * x_hat
        if self.bias is not None:
            y = y + self._affine(w[self.bias][:, None], x_hat)
        return y.reshape(x.shape).contiguous(), Saved(x_hat, rstd, gamma, tuple(x.shape[2:-1]))

    def jvp(self, s: Saved, dx: Tensor | None, dw: Named, keep: bool = True) -> tuple[Tensor | None, Kept]:
        """ẏ = γ x̂̇ + γ̇ x̂ + β̇,  x̂̇ = r(ẋ − ⟨ẋ⟩ − x̂⟨x̂ẋ⟩)."""
        dgamma, dbeta = (
            None if dw.get(name) is None else self._affine(dw[name], s.x_hat)
            for name in (self.weight, self.bias)
        )
        kept = Kept(None, None, dgamma)
        terms = []
        if dx is not None:
            v = self._grouped(dx)
            kept.moment = (s.x_hat * v).mean((2, 5), keepdim=True)
            kept.dx_hat = s.rstd * (v - v.mean((2, 5), keepdim=True) - s.x_hat * kept.moment)
            terms.append(s.gamma * kept.dx_hat)
        if dgamma is not None:
            terms.append(dgamma * s.x_hat)
        if dbeta is not None:
            terms.append(dbeta.expand(*s.x_hat.shape[:3], *dbeta.shape[3:]))
        if not terms:
            return None, kept
        return _shaped(sum(terms), s), kept

    def vjp(
        self,
        s: Saved,
        gy: Tensor,
        wanted: frozenset[str],
        need_x: bool,
        total: bool = False,
        keep: bool = True,
    ) -> Cotangents:
        """x̄ = r(s − ⟨s⟩ − x̂⟨x̂s⟩) of s = γȳ,  γ̄ = Σ ȳx̂,  β̄ = Σ ȳ."""
        g = self._grouped(gy)
        named = self._named(s, g * s.x_hat, g, wanted)
        if total:
            named = {name: v.sum(0, keepdim=True) for name, v in named.items()}
        return Cotangents(self._centred(s, s.gamma * g).reshape(gy.shape).contiguous(), named)

    def hvp(
        self,
        s: Saved,
        gy: Tensor,
        back: Cotangents,
        kept: Kept,
        dgy: Tensor | None,
        wanted: frozenset[str],
        need_x: bool,
    ) -> Cotangents:
        """The tangents of the three, by the product rule."""
        g = self._grouped(gy)
        dg = None if dgy is None else self._grouped(dgy)
        dgamma_term, ds = None, None
        if dg is not None:
            dgamma_term, ds = dg * s.x_hat, s.gamma * dg
        if kept.dgamma is not None:
            ds = kept.dgamma * g + (0 if ds is None else ds)
        dgx = None if ds is None else self._centred(s, ds)
        if kept.dx_hat is not None:
            dgamma_term = g * kept.dx_hat + (0 if dgamma_term is None else dgamma_term)
            value = s.gamma * g
            through = s.x_hat * (kept.dx_hat * value).mean((2, 5), keepdim=True) + kept.dx_hat * (
                s.x_hat * value
            ).mean((2, 5), keepdim=True)
            own = -s.rstd * through - s.rstd * kept.moment * self._centred(s, value)
            dgx = own if dgx is None else dgx + own
        dgx = None if dgx is None else _shaped(dgx, s)
        return Cotangents(dgx, self._named(s, dgamma_term, dg, wanted))

    def _centred(self, s: Saved, v: Tensor) -> Tensor:
        return s.rstd * (
            v - v.mean((2, 5), keepdim=True) - s.x_hat * (s.x_hat * v).mean((2, 5), keepdim=True)
        )

    def _grouped(self, x: Tensor) -> Tensor:
        """[T, N, ..., K, C] → [T, N, P, K, g, C/g]."""
        T, N, K, C = *x.shape[:2], *x.shape[-2:]
        groups = C if self.groups is None else self.groups
        return x.reshape(T, N, -1, K, groups, C // groups)

    def _affine(self, w: Tensor, x_hat: Tensor) -> Tensor:
        """[T, K, *shape] → [T, 1, P or 1, K, g, C/g]."""
        T, K = w.shape[:2]
        g, c = x_hat.shape[4:]
        if self.per_position and w.ndim == 5:  # [T, K, C, H, W]
            return w.permute(0, 3, 4, 1, 2).reshape(T, 1, -1, K, g, c)
        return w.reshape(T, 1, 1, K, g, c)

    def _named(
        self, s: Saved, weight: Tensor | None, bias: Tensor | None, wanted: frozenset[str]
    ) -> dict[str, Tensor]:
        """Sums over examples, and positions unless each has its own parameters; [T, K, *shape]."""
        found = {}
        for name, v in ((self.weight, weight), (self.bias, bias)):
            if name not in wanted or v is None:
                continue
            v = v.sum(1)  # [T, P, K, g, C/g]
            T, _, K = v.shape[:3]
            if self.per_position and s.space:
                H, W = s.space
                found[name] = v.reshape(T, H, W, K, -1).permute(0, 3, 4, 1, 2)
            else:
                found[name] = v.sum(1).reshape(T, K, -1)
        return found


def _shaped(v: Tensor, s: Saved) -> Tensor:
    """[T, N, P, K, g, C/g] → [T, N, ..., K, C], contiguous: the strides of parameters by position may have come in."""
    T, N, _, K = v.shape[:4]
    return v.reshape(T, N, *s.space, K, -1).contiguous()
