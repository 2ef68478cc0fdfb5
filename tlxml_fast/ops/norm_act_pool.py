"""Normalisation, piecewise-linear activation and max pool in one sweep; its JVP, VJP and the JVP of its VJP.

For x [T, N, H, W, C], per task t and channel c,

    x̂ = (x − μ)·r      z = γ x̂ + β      a = z where z > 0, else leak·z      y = the maximum of a in every window

With M = N·H·W, a dot for tangents and a bar for cotangents, and statistics of the batch (with constant ones ⟨·⟩ and
1/M are zero), everything at the winners of the windows:

    x̂̇ = r(ẋ − ⟨ẋ⟩ − x̂⟨x̂ẋ⟩)               ẏ = slope·(γ x̂̇ + γ̇ x̂ + β̇)
    s = slope·ȳ      β̄ = Σ s      γ̄ = Σ s x̂       x̄ = γ r(s − β̄/M − x̂ γ̄/M)

and the tangents of the cotangents by the product rule; csrc/cpu/norm_act_pool.cpp has them. Tangents and
cotangents are [T, N, H, W, K, C]: K of them beside each other at every position.

Two sums over a task's positions, ⟨ẋ⟩ and ⟨x̂ẋ⟩ or β̄ and γ̄, are [T, P, 2, K, C], in P parts that whoever reads them adds:
a device makes them by many programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlxml_fast.ops._dispatch import backend_of, has_kernel, launch

# Parts of a sum that a device makes, at most, and how many positions times channels of a task are worth one.
PARTS, PART = 64, 8192


@dataclass(frozen=True)
class Pool:
    """Max pooling: kernel, stride and padding, the same for rows and columns."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    ceil: bool = False

    def output(self, size: int) -> int:
        """How many windows a side of `size` has."""
        span = size + 2 * self.padding - self.kernel
        count = (-(-span // self.stride) if self.ceil else span // self.stride) + 1
        return count - (self.ceil and (count - 1) * self.stride >= size + self.padding)


@dataclass
class Primal:
    """What the derivatives of one layer need of its forward pass."""

    x: Tensor
    mean: Tensor
    rstd: Tensor
    gamma: Tensor
    x_hat: Tensor
    """x̂ at the winners, [T, N, Ho, Wo, C]."""
    slope: Tensor
    """act′(z) at the winners."""
    winner: Tensor
    """The place within the window, row·kernel + column, int32."""
    pool: Pool
    inverse_count: float
    """1/(N·H·W) where mean and rstd are those of the batch, 0 where they are constants."""
    curve: Tensor | None = None
    """act″(z) at the winners; None where it is zero."""
    vectors: bool = False
    """Whether the layer was given vectors, which stand here as images of one pixel."""

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All of them, winners apart."""
        return (self.x, self.mean, self.rstd, self.gamma, self.x_hat, self.slope, self.curve)

    def images(self, part: slice) -> Primal:
        """The same for some of the N images of one task."""
        if part == slice(0, self.x.shape[1]):
            return self
        arrays = {name: getattr(self, name)[:, part] for name in ("x", "x_hat", "slope", "winner")}
        return replace(self, **arrays)

    @property
    def parts(self) -> int:
        """P of the sums that kernels make."""
        if backend_of(self.x.device) != "triton":
            return 1
        return min(PARTS, -(-self.slope[0].numel() // PART))

    def sizes(self, K: int | None = None) -> tuple[int, ...]:
        """The integers that kernels over all positions take after the arrays."""
        T, N, H, W, C = self.x.shape
        own = (T, N, H, W, C) if K is None else (T, N, H, W, K, C)
        return (*own, *self.slope.shape[2:4], self.pool.kernel, self.pool.stride, self.pool.padding)

    def pooled_sizes(self, K: int) -> tuple[int, ...]:
        """Those of kernels over winners."""
        T, N, Ho, Wo, C = self.slope.shape
        return (T, N, K, C, Ho, Wo)


def of_tasks(v: Tensor, T: int) -> Tensor:
    """Tangents [T or 1, K, C] of γ or β as the kernels take them: repeated for T tasks, or with strides on a device."""
    if backend_of(v.device) == "triton" and v.stride(-1) == 1:
        return v
    return v.expand(T, -1, -1).contiguous()


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each task's channels: x [T, ..., C] → [T, C] each."""
    x = x.flatten(1, -2)
    if not has_kernel("channel_moments", x):
        return channel_moments_ref(x)
    T, P, C = x.shape
    mean, var = x.new_empty(T, C), x.new_empty(T, C)
    launch("channel_moments", x, mean, var, T, P, C)
    return mean, var


def norm_act_pool(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    leak: float,
    pool: Pool,
    inverse_count: float,
) -> tuple[Tensor, Primal]:
    """y [T, N, Ho, Wo, C] and what its derivatives need; mean, rstd, gamma, beta are [T, C]."""
    T, N, H, W, C = x.shape
    shape = (T, N, pool.output(H), pool.output(W), C)
    if not has_kernel("norm_act_pool", x, mean, rstd, gamma, beta):
        return norm_act_pool_ref(x, mean, rstd, gamma, beta, leak, pool, inverse_count)
    y, x_hat, slope = (x.new_empty(shape) for _ in range(3))
    winner = x.new_empty(shape, dtype=torch.int32)
    primal = Primal(x, mean, rstd, gamma, x_hat, slope, winner, pool, inverse_count)
    launch(
        "norm_act_pool", x, mean, rstd, gamma, beta, y, x_hat, slope, winner, *primal.sizes(), leak
    )  # fmt: skip
    return y, primal


def norm_act_pool_gather(p: Primal, dx: Tensor) -> tuple[Tensor, Tensor | None]:
    """ẋ at the winners [T, N, Ho, Wo, K, C]; ⟨ẋ⟩ and ⟨x̂ẋ⟩ as [T, P, 2, K, C], None where statistics are constants.

    Means are over the whole batch: those of several sets of its images add, so that ẋ can come a few at a time.
    """
    T, N, _, _, K, C = dx.shape
    if not has_kernel("norm_act_pool_gather", dx, *p.tensors):
        return norm_act_pool_gather_ref(p, dx)
    chosen = dx.new_empty(T, N, *p.slope.shape[2:4], K, C)
    moments = dx.new_empty(T, p.parts, 2, K, C) if p.inverse_count else None
    launch(
        "norm_act_pool_gather", dx, p.x, p.mean, p.rstd, p.winner, chosen, moments, *p.sizes(K), p.inverse_count
    )  # fmt: skip
    return chosen, moments


def norm_act_pool_jvp(
    p: Primal,
    chosen: Tensor,
    moments: Tensor,
    dgamma: Tensor | None = None,
    dbeta: Tensor | None = None,
    in_place: bool = False,
) -> Tensor:
    """ẏ [T, N, Ho, Wo, K, C] of what `norm_act_pool_gather` found; moments are its own, or zero.

    dgamma and dbeta are as `of_tasks` gives them. `in_place` writes ẏ over `chosen`.
    """
    if not has_kernel("norm_act_pool_jvp", chosen, moments, dgamma, dbeta, *p.tensors):
        return norm_act_pool_jvp_ref(p, chosen, moments, dgamma, dbeta)
    dy = chosen if in_place else torch.empty_like(chosen)
    launch(
        "norm_act_pool_jvp", chosen, moments, dgamma, dbeta, p.rstd, p.gamma, p.x_hat, p.slope, dy,
        *p.pooled_sizes(chosen.shape[4]), strided=(dgamma, dbeta),
    )  # fmt: skip
    return dy


def norm_act_pool_affine(p: Primal, gy: Tensor) -> Tensor:
    """β̄ and γ̄ as [T, P, 2, K, C]."""
    T, K, C = gy.shape[0], *gy.shape[4:]
    if not has_kernel("norm_act_pool_affine", gy, *p.tensors):
        return norm_act_pool_affine_ref(p, gy)
    gaffine = gy.new_empty(T, p.parts, 2, K, C)
    launch("norm_act_pool_affine", gy, p.x_hat, p.slope, gaffine, *p.pooled_sizes(K))
    return gaffine


def norm_act_pool_vjp(p: Primal, gy: Tensor, gaffine: Tensor) -> Tensor:
    """x̄ [T, N, H, W, K, C]; gaffine is `norm_act_pool_affine` of all images, gy may be of some."""
    T, N, H, W, C = p.x.shape
    K = gy.shape[4]
    if not has_kernel("norm_act_pool_vjp", gy, gaffine, *p.tensors):
        return norm_act_pool_vjp_ref(p, gy, gaffine)
    gx = gy.new_empty(T, N, H, W, K, C)
    launch(
        "norm_act_pool_vjp", gy, gaffine, p.x, p.mean, p.rstd, p.gamma, p.slope, p.winner, gx,
        *p.sizes(K), p.inverse_count,
    )  # fmt: skip
    return gx


def norm_act_pool_hvp(
    p: Primal,
    gy: Tensor,
    gx: Tensor,
    gaffine: Tensor,
    dgy: Tensor,
    dx: Tensor,
    chosen: Tensor,
    moments: Tensor,
    dgamma: Tensor | None = None,
    dbeta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The tangents of x̄, and of β̄ and γ̄, along ẋ, γ̇, β̇ and ȳ̇.

    gy, gx, gaffine are one cotangent (K = 1) and what was made of it; `chosen` and `moments` are dx's.
    """
    K = dx.shape[4]
    given = (gy, gx, gaffine, dgy, chosen, moments, dgamma, dbeta)
    if not has_kernel("norm_act_pool_hvp", dx, *given, *p.tensors):
        return norm_act_pool_hvp_ref(p, gy, gx, gaffine, dgy, dx, chosen, moments, dgamma, dbeta)
    dgx, dgaffine = torch.empty_like(dx), dx.new_empty(len(dx), p.parts, 2, *dx.shape[4:])
    launch(
        "norm_act_pool_hvp", gy, gx, gaffine, dgy, dx, chosen, dgamma, dbeta, moments,
        p.x, p.mean, p.rstd, p.gamma, p.x_hat, p.slope, p.curve, p.winner, dgx, dgaffine, *p.sizes(K), p.inverse_count,
        strided=(dgamma, dbeta),
    )  # fmt: skip
    return dgx, dgaffine


# ---- in plain torch ---------------------------------------------------------------------------------


def channel_moments_ref(x: Tensor) -> tuple[Tensor, Tensor]:
    """`channel_moments` by torch."""
    x = x.flatten(1, -2)
    return x.mean(1), x.var(1, correction=0)


def norm_act_pool_ref(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    beta: Tensor,
    leak: float,
    pool: Pool,
    inverse_count: float,
) -> tuple[Tensor, Primal]:
    """`norm_act_pool` by torch's own pool."""
    x_hat = _hat(x, mean, rstd)
    z = on_channels(gamma) * x_hat + on_channels(beta)
    z = torch.where(z > 0, z, leak * z)
    T, N, _, W, _ = x.shape
    y, place = F.max_pool2d(
        z.flatten(0, 1).movedim(-1, 1),
        pool.kernel,
        pool.stride,
        pool.padding,
        ceil_mode=pool.ceil,
        return_indices=True,
    )
    y, place = (v.movedim(1, -1).unflatten(0, (T, N)) for v in (y, place))
    i, j = (torch.arange(n, device=x.device) for n in place.shape[2:4])
    row = place // W - (i * pool.stride - pool.padding)[:, None, None]
    column = place % W - (j * pool.stride - pool.padding)[:, None]
    slope = torch.where(y > 0, torch.ones_like(y), torch.full_like(y, leak))
    winner = (row * pool.kernel + column).int()
    primal = Primal(x, mean, rstd, gamma, slope, slope, winner, pool, inverse_count)
    return y, replace(primal, x_hat=at_winners(primal, x_hat[..., None, :])[..., 0, :])


def norm_act_pool_gather_ref(p: Primal, dx: Tensor) -> tuple[Tensor, Tensor | None]:
    """`norm_act_pool_gather` by gather."""
    x_hat = _hat(p.x, p.mean, p.rstd)[..., None, :]
    sums = torch.stack([dx.sum((1, 2, 3)), (x_hat * dx).sum((1, 2, 3))], 1)[:, None]
    return at_winners(p, dx), sums * p.inverse_count if p.inverse_count else None


def norm_act_pool_jvp_ref(
    p: Primal, chosen: Tensor, moments: Tensor, dgamma: Tensor | None, dbeta: Tensor | None
) -> Tensor:
    """`norm_act_pool_jvp` by its formula."""
    x_hat = p.x_hat[..., None, :]
    first, second = (on_channels(m) for m in moments.sum(1).unbind(1))
    dz = on_channels((p.gamma * p.rstd)[:, None]) * (chosen - first - x_hat * second)
    if dgamma is not None:
        dz = dz + on_channels(dgamma) * x_hat
    if dbeta is not None:
        dz = dz + on_channels(dbeta)
    return p.slope[..., None, :] * dz


def norm_act_pool_affine_ref(p: Primal, gy: Tensor) -> Tensor:
    """`norm_act_pool_affine` by its formula."""
    s = p.slope[..., None, :] * gy
    return torch.stack([s.sum((1, 2, 3)), (s * p.x_hat[..., None, :]).sum((1, 2, 3))], 1)[:, None]


def norm_act_pool_vjp_ref(p: Primal, gy: Tensor, gaffine: Tensor) -> Tensor:
    """`norm_act_pool_vjp` by its formula."""
    x_hat = _hat(p.x, p.mean, p.rstd)[..., None, :]
    gbeta, ggamma = (on_channels(g) * p.inverse_count for g in gaffine.sum(1).unbind(1))
    s = scatter(p, p.slope[..., None, :] * gy)
    return on_channels((p.gamma * p.rstd)[:, None]) * (s - gbeta - x_hat * ggamma)


def norm_act_pool_hvp_ref(
    p: Primal,
    gy: Tensor,
    gx: Tensor,
    gaffine: Tensor,
    dgy: Tensor,
    dx: Tensor,
    chosen: Tensor,
    moments: Tensor,
    dgamma: Tensor | None,
    dbeta: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`norm_act_pool_hvp` by its formula, over all positions."""
    x_hat = _hat(p.x, p.mean, p.rstd)[..., None, :]
    gamma, rstd = on_channels(p.gamma[:, None]), on_channels(p.rstd[:, None])
    dgamma = torch.zeros_like(gamma) if dgamma is None else on_channels(dgamma)
    dbeta = torch.zeros_like(gamma) if dbeta is None else on_channels(dbeta)
    first, second = (on_channels(m) for m in moments.sum(1).unbind(1))
    dx_hat = rstd * (dx - first - x_hat * second)
    s = p.slope[..., None, :] * gy
    ds = p.slope[..., None, :] * dgy
    if p.curve is not None:
        ds = ds + p.curve[..., None, :] * gy * at_winners(p, gamma * dx_hat + dgamma * x_hat + dbeta)
    s, ds = scatter(p, s.expand_as(ds)), scatter(p, ds)
    dgaffine = torch.stack([ds.sum((1, 2, 3)), (ds * x_hat + s * dx_hat).sum((1, 2, 3))], 1)
    gbeta, ggamma = (on_channels(g) * p.inverse_count for g in gaffine.sum(1).unbind(1))
    dgbeta, dggamma = (on_channels(g) * p.inverse_count for g in dgaffine.unbind(1))
    inner = gamma * (ds - dgbeta - x_hat * dggamma - dx_hat * ggamma) + dgamma * (s - gbeta - x_hat * ggamma)
    return rstd * inner - rstd * second * gx, dgaffine[:, None]


def on_channels(v: Tensor) -> Tensor:
    """[T, ..., C] → [T, 1, 1, 1, ..., C]."""
    return v[:, None, None, None]


def _hat(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return (x - on_channels(mean)) * on_channels(rstd)


def _places(p: Primal) -> Tensor:
    """The winners as positions of the image, [T, N, Ho·Wo, 1, C], int64."""
    T, N, Ho, Wo, C = p.winner.shape
    i, j = (torch.arange(n, device=p.x.device) for n in (Ho, Wo))
    row = p.winner // p.pool.kernel + (i * p.pool.stride - p.pool.padding)[:, None, None]
    column = p.winner % p.pool.kernel + (j * p.pool.stride - p.pool.padding)[:, None]
    return (row * p.x.shape[3] + column).reshape(T, N, Ho * Wo, 1, C).long()


def at_winners(p: Primal, dense: Tensor) -> Tensor:
    """[T, N, H, W, K, C] → [T, N, Ho, Wo, K, C]."""
    places = _places(p).expand(-1, -1, -1, dense.shape[4], -1)
    return dense.flatten(2, 3).gather(2, places).unflatten(2, p.winner.shape[2:4])


def scatter(p: Primal, at_winners: Tensor) -> Tensor:
    """The adjoint of `at_winners`."""
    T, N, H, W, C = p.x.shape
    K = at_winners.shape[4]
    dense = at_winners.new_zeros(T, N, H * W, K, C)
    dense.scatter_add_(2, _places(p).expand(-1, -1, -1, K, -1), at_winners.flatten(2, 3))
    return dense.unflatten(2, (H, W))


def examples(
    dtype: torch.dtype,
    generator: torch.Generator,
    size: tuple[int, int, int, int, int] = (2, 3, 6, 5, 4),
    K: int = 3,
    pool: Pool = Pool(2, 2),
    batch: bool = True,
    parts: int = 1,
) -> dict[str, tuple]:
    """Calls for tests, by the kernel's name: function, reference, arguments; x is [T, N, H, W, C].

    With `batch` the statistics are those of x, else constants. Sums that are given come in so many parts.
    """
    T, N, H, W, C = size
    pooled = (T, N, pool.output(H), pool.output(W))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    x, gamma, beta = normal(*size), normal(T, C), normal(T, C)
    mean, var = x.mean((1, 2, 3)), x.var((1, 2, 3), correction=0)
    forward = (x, mean, (var + 1e-2).rsqrt(), gamma, beta, 0.1, pool, 1 / (N * H * W) if batch else 0.0)
    _, p = norm_act_pool_ref(*forward)
    dx, gy, moments = normal(T, N, H, W, K, C), normal(*pooled, K, C), normal(T, parts, 2, K, C)
    one, tangent = normal(*pooled, 1, C), normal(T, K, C)
    # what one pass gives the next must fit: the JVP of the VJP takes the results of both
    gaffine = norm_act_pool_affine_ref(p, one)
    chosen, own = norm_act_pool_gather_ref(p, dx)
    moved = moments[:, :1] * 0 if own is None else own
    second = (p, one, norm_act_pool_vjp_ref(p, one, gaffine), gaffine, gy, dx, chosen, moved)
    return {
        "channel_moments": (channel_moments, channel_moments_ref, (x,)),
        "norm_act_pool": (_value, _value_ref, forward),
        "norm_act_pool_gather": (_added(norm_act_pool_gather), _added(norm_act_pool_gather_ref), (p, dx)),
        "norm_act_pool_jvp": (
            norm_act_pool_jvp,
            norm_act_pool_jvp_ref,
            (p, gy, moments, tangent, tangent + 1),
        ),
        "norm_act_pool_affine": (_added(norm_act_pool_affine), _added(norm_act_pool_affine_ref), (p, gy)),
        "norm_act_pool_vjp": (norm_act_pool_vjp, norm_act_pool_vjp_ref, (p, gy, moments)),
        "norm_act_pool_hvp": (
            _added(norm_act_pool_hvp),
            _added(norm_act_pool_hvp_ref),
            (*second, tangent, tangent + 1),
        ),
    }


def _value(x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, beta: Tensor, *rest) -> Tensor:
    leak, pool, inverse_count = rest
    return norm_act_pool(x, mean, rstd, gamma, beta, leak=leak, pool=pool, inverse_count=inverse_count)[0]


def _value_ref(*arguments) -> Tensor:
    return norm_act_pool_ref(*arguments)[0]


def _added(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with the parts of its sums added."""

    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        found = tuple(
            x.sum(1) if x is not None and x.ndim == 5 else x
            for x in (result if isinstance(result, tuple) else (result,))
        )
        return found if isinstance(result, tuple) else found[0]

    return call
