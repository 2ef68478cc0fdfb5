"""Patches of images as rows of a matrix, which makes a convolution a product; and the adjoint."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tlxml_fast.ops._dispatch import has_kernel, launch


class Window(NamedTuple):
    """Kernel, stride and padding of a convolution, rows then columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def output(self, H: int, W: int) -> tuple[int, int]:
        """The size of the convolved image."""
        return tuple(
            (size + 2 * p - k) // s + 1
            for size, k, s, p in zip((H, W), self.kernel, self.stride, self.padding, strict=True)
        )


def im2col(x: Tensor, window: Window) -> Tensor:
    """x [N, H, W, K, C] → [N, Ho, Wo, K, kernel_h, kernel_w, C]: each tangent's neighbourhoods; zero outside."""
    N, H, W, K, C = x.shape
    if not has_kernel("im2col", x):
        return im2col_ref(x, window)
    Ho, Wo = window.output(H, W)
    patches = x.new_empty(N, Ho, Wo, K, *window.kernel, C)
    launch("im2col", x, patches, N, H, W, K, C, Ho, Wo, *window.kernel, *window.stride, *window.padding)
    return patches


def im2col_ref(x: Tensor, window: Window) -> Tensor:
    """`im2col` by unfolding."""
    (ph, pw), (kh, kw), (sh, sw) = window.padding, window.kernel, window.stride
    padded = F.pad(x, (0, 0, 0, 0, pw, pw, ph, ph))
    return padded.unfold(1, kh, sh).unfold(2, kw, sw).movedim(4, -1)


def col2im(patches: Tensor, H: int, W: int, window: Window) -> Tensor:
    """The adjoint of `im2col`: patches added up into images [N, H, W, K, C]."""
    N, Ho, Wo, K, _, _, C = patches.shape
    if not has_kernel("col2im", patches):
        return col2im_ref(patches, H, W, window)
    x = patches.new_empty(N, H, W, K, C)
    launch("col2im", patches, x, N, H, W, K, C, Ho, Wo, *window.kernel, *window.stride, *window.padding)
    return x


def col2im_ref(patches: Tensor, H: int, W: int, window: Window) -> Tensor:
    """`col2im` by differentiating `im2col_ref`."""
    zero = patches.new_zeros(patches.shape[0], H, W, patches.shape[3], patches.shape[6])
    return torch.func.vjp(lambda x: im2col_ref(x, window), zero)[1](patches)[0]


def examples(
    dtype: torch.dtype,
    generator: torch.Generator,
    size: tuple[int, int, int, int, int] = (2, 5, 6, 3, 4),
    window: Window = Window((3, 2), (2, 1), (1, 0)),  # noqa: B008 - it is a tuple
) -> dict[str, tuple]:
    """Calls for tests, by the kernel's name: function, reference, arguments; x is [N, H, W, K, C]."""
    N, H, W, K, C = size
    x = torch.randn(*size, dtype=dtype, generator=generator)
    patches = torch.randn(N, *window.output(H, W), K, *window.kernel, C, dtype=dtype, generator=generator)
    return {
        "im2col": (im2col, im2col_ref, (x, window)),
        "col2im": (col2im, col2im_ref, (patches, H, W, window)),
    }
