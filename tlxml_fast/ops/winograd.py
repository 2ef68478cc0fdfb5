"""Winograd's F(2×2, 3×3): the four transforms around a product over channels, and their adjoints.

For a window d [4, 4] of the input and a kernel w [3, 3], the 2×2 outputs of their convolution are

    y = Aᵀ [(G w Gᵀ) ∘ (Bᵀ d B)] A,      16 products in place of 36

(Lavin and Gray 2016, arXiv:1509.09308). Over channels the products are 16 matrix products, which are torch's. Since
each transform is linear, a convolution's derivatives are the same products between adjoint transforms.

    data      x [N, H, W, C]          → v [16, N, th, tw, C]     Bᵀ d B of each window
    data_t    v                       → x                        its adjoint
    output    m [16, N, th, tw, C]    → y [N, Ho, Wo, C]         Aᵀ m A of each tile
    output_t  y                       → m                        its adjoint
    kernel    w [T, K, O, I, 3, 3]    → u [16, T, I, K, O]       G w Gᵀ
    kernel_t  u                       → w                        its adjoint

with Ho = H + 2·padding − 2 and th = ⌈Ho/2⌉, columns likewise. C counts all channels of all tangents.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tlxml_fast.ops._dispatch import deliver, has_kernel, launch

B_T = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A_T = ((1, 1, 1, 0), (0, 1, -1, -1))


@cache
def _matrix(which: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(which, dtype=dtype, device=device)


def winograd_data(x: Tensor, padding: int) -> Tensor:
    """Bᵀ d B of every window of x [N, H, W, C]: [16, N, th, tw, C]."""
    N, H, W, C = x.shape
    if not has_kernel("winograd_data", x):
        return winograd_data_ref(x, padding)
    v = x.new_empty(16, N, (H + 2 * padding - 1) // 2, (W + 2 * padding - 1) // 2, C)
    launch("winograd_data", x, v, N, H, W, C, padding)
    return v


def winograd_data_ref(x: Tensor, padding: int) -> Tensor:
    """`winograd_data` by slicing."""
    _, H, W, _ = x.shape
    th, tw = (H + 2 * padding - 1) // 2, (W + 2 * padding - 1) // 2
    padded = F.pad(
        x, (0, 0, padding, padding + 2, padding, padding + 2)
    )  # and what an odd side's last tile needs
    windows = padded.unfold(1, 4, 2).unfold(2, 4, 2)[:, :th, :tw]  # [N, th, tw, C, 4, 4]
    b = _matrix(B_T, x.dtype, x.device)
    return torch.einsum("ia,ntucab,jb->ijntuc", b, windows, b).flatten(0, 1)


def winograd_data_t(v: Tensor, H: int, W: int, padding: int, out: Tensor | None = None) -> Tensor:
    """The adjoint of `winograd_data`: [16, N, th, tw, C] → [N, H, W, C], written to `out` if given."""
    N, C = v.shape[1], v.shape[-1]
    if not has_kernel("winograd_data_t", v):
        return deliver(winograd_data_t_ref(v, H, W, padding), out)
    x = v.new_empty(N, H, W, C) if out is None else out
    launch("winograd_data_t", v, x, N, H, W, C, padding)
    return x


def winograd_data_t_ref(v: Tensor, H: int, W: int, padding: int) -> Tensor:
    """`winograd_data_t` by differentiating `winograd_data_ref`."""
    zero = v.new_zeros(v.shape[1], H, W, v.shape[-1])
    return torch.func.vjp(lambda x: winograd_data_ref(x, padding), zero)[1](v)[0]


def winograd_output(m: Tensor, Ho: int, Wo: int, out: Tensor | None = None) -> Tensor:
    """Aᵀ m A of every tile: [16, N, th, tw, C] → [N, Ho, Wo, C], written to `out` if given."""
    N, C = m.shape[1], m.shape[-1]
    if not has_kernel("winograd_output", m):
        return deliver(winograd_output_ref(m, Ho, Wo), out)
    y = m.new_empty(N, Ho, Wo, C) if out is None else out
    launch("winograd_output", m, y, N, Ho, Wo, C)
    return y


def winograd_output_ref(m: Tensor, Ho: int, Wo: int) -> Tensor:
    """`winograd_output` by einsum."""
    a = _matrix(A_T, m.dtype, m.device)
    tiles = torch.einsum("ai,ijntuc,bj->ntaubc", a, m.unflatten(0, (4, 4)), a)
    return tiles.flatten(1, 2).flatten(2, 3)[:, :Ho, :Wo]


def winograd_output_t(y: Tensor) -> Tensor:
    """The adjoint of `winograd_output`: [N, Ho, Wo, C] → [16, N, th, tw, C]."""
    N, Ho, Wo, C = y.shape
    if not has_kernel("winograd_output_t", y):
        return winograd_output_t_ref(y)
    m = y.new_empty(16, N, (Ho + 1) // 2, (Wo + 1) // 2, C)
    launch("winograd_output_t", y, m, N, Ho, Wo, C)
    return m


def winograd_output_t_ref(y: Tensor) -> Tensor:
    """`winograd_output_t` by differentiating `winograd_output_ref`."""
    N, Ho, Wo, C = y.shape
    zero = y.new_zeros(16, N, (Ho + 1) // 2, (Wo + 1) // 2, C)
    return torch.func.vjp(lambda m: winograd_output_ref(m, Ho, Wo), zero)[1](y)[0]


def winograd_kernel(w: Tensor) -> Tensor:
    """G w Gᵀ: [T, K, O, I, 3, 3] → [16, T, I, K, O]."""
    nine = w.flatten(-2).permute(4, 0, 3, 1, 2).reshape(9, -1)
    T, K, outputs, inputs = w.shape[:4]
    return (_both_sides(w.dtype, w.device) @ nine).view(16, T, inputs, K, outputs)


def winograd_kernel_t(u: Tensor) -> Tensor:
    """The adjoint of `winograd_kernel`."""
    nine = _both_sides(u.dtype, u.device).mT @ u.reshape(16, -1)
    return nine.view(3, 3, *u.shape[1:]).permute(2, 4, 5, 3, 0, 1)


@cache
def _both_sides(dtype: torch.dtype, device: torch.device) -> Tensor:
    """G ⊗ G, [16, 9], which takes the nine numbers of a kernel at once."""
    g = _matrix(G, dtype, device)
    return torch.kron(g, g)


def examples(
    dtype: torch.dtype,
    generator: torch.Generator,
    size: tuple[int, int, int, int] = (2, 5, 6, 7),
    padding: int = 1,
) -> dict[str, tuple]:
    """Calls for tests, by the kernel's name: function, reference, arguments; x is [N, H, W, C]."""
    N, H, W, C = size
    Ho, Wo = H + 2 * padding - 2, W + 2 * padding - 2
    tiles = (16, N, (Ho + 1) // 2, (Wo + 1) // 2, C)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    return {
        "winograd_data": (winograd_data, winograd_data_ref, (normal(*size), padding)),
        "winograd_data_t": (winograd_data_t, winograd_data_t_ref, (normal(*tiles), H, W, padding)),
        "winograd_output": (winograd_output, winograd_output_ref, (normal(*tiles), Ho, Wo)),
        "winograd_output_t": (winograd_output_t, winograd_output_t_ref, (normal(N, Ho, Wo, C),)),
    }
