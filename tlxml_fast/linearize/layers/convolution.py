"""torch.nn.Conv2d, by patches or by Winograd's tiles."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ...ops.im2col import Window, col2im, im2col
from ...ops.winograd import (
    winograd_data,
    winograd_data_t,
    winograd_kernel,
    winograd_kernel_t,
    winograd_output,
    winograd_output_t,
)
from .product import Product

# Lifted images of one chunk: small enough to stay in the cache between the transforms and the product.
CHUNK_BYTES = 2 << 20


class Convolution(Product):
    """What both ways share: images, and chunks of them."""

    def __init__(self, weight: str, bias: str | None, window: Window, shift_is_absorbed: bool = False):
        super().__init__(weight, bias, shift_is_absorbed)
        self.window = window

    growth: float
    """Lifted numbers for each number of the input."""

    def output_space(self, x: Tensor) -> tuple[int, ...]:
        """(N, Ho, Wo)."""
        return (x.shape[1], *self.window.output(*x.shape[2:4]))

    def chunks(self, x: Tensor, K: int) -> Iterator[slice]:
        """As many images as fit, where there is one task (its chunks are contiguous)."""
        T, N, H, W, _, C = x.shape
        at_once = N
        if T == 1:
            lifted = self.growth * H * W * K * C * x.element_size()
            at_once = max(1, min(N, int(CHUNK_BYTES / lifted)))
        for first in range(0, N, at_once):
            yield slice(first, min(N, first + at_once))


class PatchConvolution(Convolution):
    """Any kernel, stride and padding: V are the patches of every output position."""

    def __init__(self, weight: str, bias: str | None, window: Window, shift_is_absorbed: bool = False):
        super().__init__(weight, bias, window, shift_is_absorbed)
        self.growth = window.kernel[0] * window.kernel[1] / (window.stride[0] * window.stride[1])

    def lift(self, x: Tensor) -> Tensor:
        """[1, T, N·Ho·Wo, K, kh·kw·C]."""
        T, K = x.shape[0], x.shape[4]
        return im2col(x.flatten(0, 1), self.window).reshape(1, T, -1, K, self._row(x))

    def lift_t(self, V: Tensor, x: Tensor) -> None:
        """Patches added up."""
        T, N, H, W, K, C = x.shape
        patches = V.reshape(T * N, *self.window.output(H, W), K, *self.window.kernel, C)
        x.copy_(col2im(patches, H, W, self.window).view(x.shape))

    def products_in(self, y: Tensor) -> Tensor:
        """The output is the product."""
        return self.out_t(y)

    def out_t(self, y: Tensor) -> Tensor:
        """[1, T, N·Ho·Wo, K, O]."""
        return y.flatten(1, 3)[None]

    def kernel(self, w: Tensor) -> Tensor:
        """[1, T, kh·kw·I, K, O]."""
        return w.permute(0, 4, 5, 3, 1, 2).flatten(1, 3)[None]

    def kernel_t(self, U: Tensor) -> Tensor:
        """Back to [T, K, O, I, kh, kw]."""
        return U[0].unflatten(1, (*self.window.kernel, -1)).permute(0, 4, 5, 3, 1, 2)

    def _row(self, x: Tensor) -> int:
        return self.window.kernel[0] * self.window.kernel[1] * x.shape[-1]


class WinogradConvolution(Convolution):
    """3×3 with stride 1: sixteen products of tiles, 2.25 times fewer flops than patches, less memory than they."""

    growth = 4

    def lift(self, x: Tensor) -> Tensor:
        """[16, T, N·th·tw, K, C]."""
        T, _, _, _, K, C = x.shape
        v = winograd_data(x.flatten(0, 1).flatten(-2), self.window.padding[0])
        return v.view(16, T, -1, K, C)

    def lift_t(self, V: Tensor, x: Tensor) -> None:
        """Windows added up."""
        T, N, H, W, K, C = x.shape
        p = self.window.padding[0]
        v = V.view(16, T * N, (H + 2 * p - 1) // 2, (W + 2 * p - 1) // 2, K * C)
        winograd_data_t(v, H, W, p, out=x.view(T * N, H, W, K * C))

    def out(self, M: Tensor, y: Tensor) -> None:
        """2×2 outputs of every tile."""
        T, N, Ho, Wo, K, out = y.shape
        m = M.view(16, T * N, (Ho + 1) // 2, (Wo + 1) // 2, K * out)
        winograd_output(m, Ho, Wo, out=y.view(T * N, Ho, Wo, K * out))

    def out_t(self, y: Tensor) -> Tensor:
        """[16, T, N·th·tw, K, O]."""
        T, _, _, _, K, out = y.shape
        return winograd_output_t(y.flatten(0, 1).flatten(-2)).view(16, T, -1, K, out)

    def kernel(self, w: Tensor) -> Tensor:
        """G w Gᵀ, [16, T, I, K, O]."""
        return winograd_kernel(w)

    def kernel_t(self, U: Tensor) -> Tensor:
        """Gᵀ U G."""
        return winograd_kernel_t(U)


def convolution(
    weight: str, bias: str | None, window: Window, in_channels: int, shift_is_absorbed: bool = False
) -> Convolution:
    """Tiles where the kernel is 3×3 at stride 1 and there are channels enough to make products of; else patches."""
    square = window.kernel == (3, 3) and window.stride == (1, 1) and window.padding[0] == window.padding[1]
    kind = WinogradConvolution if square and in_channels >= 4 and window.padding[0] <= 2 else PatchConvolution
    return kind(weight, bias, window, shift_is_absorbed)
