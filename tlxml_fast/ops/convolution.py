"""A convolution's products for K tangents at once, as a device makes them: implicit GEMMs, no patches in memory.

    push   y  = dx ∗ w + x ∗ dw          images [T, N, H, W, K, C], the primal's [T, N, H, W, C]
    pull   x̄  = the adjoint of push in dx, at ȳ, and in x, at one cotangent ȳ1
    gram   w̄  = the adjoint of push in dw, at ȳ, and in w, at ȳ1: Σ x ȳ + dx ȳ1 over positions

Weights are [T or 1, taps, C, O], their tangents [T or 1, K, taps, C, O], tap = row·kw + column, of any strides: those
that do not lie as the kernel reads them are copied (`conv_weights`). A pair of arguments may be None, both of it. The
CPU makes the same products from patches or Winograd's tiles (`im2col`, `winograd`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tlxml_fast.ops._dispatch import has_kernel, launch
from tlxml_fast.ops.im2col import Window, col2im_ref, im2col_ref

PRECISIONS = ("fp32", "tf32", "tf32x3", "bf16")
"""What products of float32 are made of, sums always in float32: all bits; tensor cores with 10 bits of each factor;
with three products of parts, nearly all; with 7."""


class Sizes(NamedTuple):
    """Of x [T, N, H, W, C], K tangents and O outputs."""

    T: int
    N: int
    H: int
    W: int
    K: int
    C: int
    O: int

    def arguments(self, window: Window) -> tuple[int, ...]:
        """As the kernels take them."""
        T, N, H, W, K, C, out = self
        Ho, Wo = window.output(H, W)
        return (T, N, K, H, W, Ho, Wo, C, out, *window.kernel, *window.stride, *window.padding)

    def flops(self, window: Window, terms: int) -> int:
        """Of `terms` products of all tangents."""
        T, N, H, W, K, C, out = self
        Ho, Wo = window.output(H, W)
        return terms * 2 * T * N * Ho * Wo * K * window.kernel[0] * window.kernel[1] * C * out


def conv_weights(w: Tensor, back: bool, precision: str = "fp32") -> Tensor:
    """w [..., taps, C, O], laid out as `conv_push`, or back `conv_pull`, reads it: many products share one copy."""
    return launch("conv_weights", w, back, precision, strided=(w,)) if has_kernel("conv_weights", w) else w


def conv_push(
    size: Sizes, window: Window, dx: Tensor | None, w: Tensor | None, x: Tensor | None, dw: Tensor | None,
    precision: str = "fp32", out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """y [T, N, Ho, Wo, K, O]."""
    given = (dx, w, x, dw)
    first = dx if dx is not None else x
    if not has_kernel("conv_push", first, *given):
        y = conv_push_ref(size, window, *given)
        return y if out is None else out.copy_(y)
    if out is None:
        out = first.new_empty(size.T, size.N, *window.output(size.H, size.W), size.K, size.O)
    _launch("conv_push", size, window, given, out, (), precision, strided=(w, dw))
    return out


def conv_pull(
    size: Sizes, window: Window, gy: Tensor | None, w: Tensor | None, gy1: Tensor | None, dw: Tensor | None,
    precision: str = "fp32", out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x̄ [T, N, H, W, K, C] of ȳ [T, N, Ho, Wo, K, O] and ȳ1 [T, N, Ho, Wo, O]."""
    given = (gy, w, gy1, dw)
    first = gy if gy is not None else gy1
    if not has_kernel("conv_pull", first, *given):
        gx = conv_pull_ref(size, window, *given)
        return gx if out is None else out.copy_(gx)
    if out is None:
        out = first.new_empty(*size[:4], size.K, size.C)
    _launch("conv_pull", size, window, given, out, (), precision, strided=(w, dw))
    return out


def conv_gram(
    size: Sizes, window: Window, x: Tensor | None, gy: Tensor | None, dx: Tensor | None, gy1: Tensor | None,
    total: bool = False, precision: str = "fp32",
) -> Tensor:  # fmt: skip
    """w̄ [T, K, taps, C, O]; with `total` summed over tasks, [1, …]."""
    given = (x, gy, dx, gy1)
    first = x if x is not None else dx
    if not has_kernel("conv_gram", first, *given):
        return conv_gram_ref(size, window, *given, total)
    taps = window.kernel[0] * window.kernel[1]
    gw = first.new_empty(1 if total else size.T, size.K, taps, size.C, size.O)
    _launch("conv_gram", size, window, given, gw, (int(total),), precision)
    return gw


def _launch(
    op: str, size: Sizes, window: Window, given: tuple[Tensor | None, ...], out: Tensor, more: tuple,
    precision: str, strided: tuple[Tensor | None, ...] = (),
) -> None:  # fmt: skip
    terms = sum(x is not None for x in given) // 2
    held = [x if x is None or any(x is s for s in strided) else x.contiguous() for x in given]
    launch(
        op, *held, out, *size.arguments(window), *more, precision,
        flops=size.flops(window, terms), strided=strided,
    )  # fmt: skip


# ---- in plain torch -------------------------------------------------------------------------------------------------


def _patches(x: Tensor, window: Window) -> Tensor:
    """[T, N, H, W, K, C] → [T, N, Ho, Wo, K, taps·C]."""
    return im2col_ref(x.flatten(0, 1), window).flatten(4).unflatten(0, x.shape[:2])


def conv_push_ref(
    size: Sizes, window: Window, dx: Tensor | None, w: Tensor | None, x: Tensor | None, dw: Tensor | None
) -> Tensor:
    """`conv_push` by patches."""
    terms = []
    if dx is not None:
        terms.append(
            torch.einsum("tnijkc,tco->tnijko", _patches(dx, window), _tasks(w.flatten(1, 2), size.T))
        )
    if x is not None:
        patches = _patches(x[..., None, :], window).squeeze(4)
        terms.append(torch.einsum("tnijc,tkco->tnijko", patches, _tasks(dw.flatten(2, 3), size.T)))
    return sum(terms)


def conv_pull_ref(
    size: Sizes, window: Window, gy: Tensor | None, w: Tensor | None, gy1: Tensor | None, dw: Tensor | None
) -> Tensor:
    """`conv_pull` by the adjoint of patches."""
    terms = []
    if gy is not None:
        terms.append(torch.einsum("tnijko,tco->tnijkc", gy, _tasks(w.flatten(1, 2), size.T)))
    if gy1 is not None:
        terms.append(torch.einsum("tnijo,tkco->tnijkc", gy1, _tasks(dw.flatten(2, 3), size.T)))
    patches = sum(terms).flatten(0, 1).unflatten(-1, (*window.kernel, size.C))
    return col2im_ref(patches, size.H, size.W, window).unflatten(0, (size.T, size.N))


def conv_gram_ref(
    size: Sizes, window: Window, x: Tensor | None, gy: Tensor | None, dx: Tensor | None, gy1: Tensor | None,
    total: bool,
) -> Tensor:  # fmt: skip
    """`conv_gram` by patches."""
    terms = []
    if x is not None:
        patches = _patches(x[..., None, :], window).squeeze(4)
        terms.append(torch.einsum("tnijc,tnijko->tkco", patches, gy))
    if dx is not None:
        terms.append(torch.einsum("tnijkc,tnijo->tkco", _patches(dx, window), gy1))
    gw = sum(terms)
    return (gw.sum(0, keepdim=True) if total else gw).unflatten(2, (-1, size.C))


def _tasks(w: Tensor, T: int) -> Tensor:
    return w.expand(T, *w.shape[1:])


def examples(
    dtype: torch.dtype,
    generator: torch.Generator,
    size: Sizes = Sizes(2, 3, 5, 4, 3, 4, 6),  # noqa: B008 - it is a tuple
    window: Window = Window((3, 3), (1, 1), (1, 1)),  # noqa: B008
    shared: bool = True,
) -> dict[str, tuple]:
    """Calls for tests, by the kernel's name: function, reference, arguments; `shared` weights are of all tasks."""
    T, N, H, W, K, C, out = size
    Ho, Wo = window.output(H, W)
    tasks, taps = (1 if shared else T), window.kernel[0] * window.kernel[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    x, dx, w, dw = normal(T, N, H, W, C), normal(T, N, H, W, K, C), normal(tasks, taps, C, out), None
    dw, gy, gy1 = normal(tasks, K, taps, C, out), normal(T, N, Ho, Wo, K, out), normal(T, N, Ho, Wo, out)
    return {
        "conv_push": (conv_push, conv_push_ref, (size, window, dx, w, x, dw)),
        "conv_pull": (conv_pull, conv_pull_ref, (size, window, gy, w, gy1, dw)),
        "conv_gram": (conv_gram, conv_gram_ref, (size, window, x, gy, dx, gy1, shared)),
    }
