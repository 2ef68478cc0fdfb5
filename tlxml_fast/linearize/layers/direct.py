"""A convolution as a device makes it: implicit GEMMs over whole images, K tangents in a launch."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ...ops.convolution import Sizes, conv_gram, conv_pull, conv_push, conv_weights
from .convolution import Convolution, PatchConvolution
from .product import Kept, Saved


class DirectConvolution(PatchConvolution):
    """The products of first and second derivatives by one launch each; weights packed to [T, K, taps, I, O].

    Hyper-dual numbers, which the exact Hessian through adaptation takes, go by patches.
    """

    @classmethod
    def of(cls, other: Convolution, precision: str) -> DirectConvolution:
        """The same convolution."""
        direct = cls(other.weight, other.bias, other.window, other.absorbed)
        direct.precision = precision
        return direct

    def packed(self, w: Tensor) -> Tensor:
        """[T, taps, I, O], laid out for products with many inputs."""
        return conv_weights(self.packed_tangents(w[:, None]).squeeze(1), False, self.precision)

    def weights_back(self, saved: Saved) -> Tensor:
        """The same, laid out for those with its transpose."""
        if saved.U_back is None:
            saved.U_back = conv_weights(saved.U, True, self.precision)
        return saved.U_back

    def packed_tangents(self, dw: Tensor) -> Tensor:
        """[T, K, taps, I, O]."""
        return dw.permute(0, 1, 4, 5, 3, 2).flatten(2, 3)  # a view of what `Layout.pack` has laid out

    def unpacked(self, gU: Tensor) -> Tensor:
        """[T, K, O, I, kh, kw]."""
        return gU.unflatten(2, self.window.kernel).permute(0, 1, 5, 4, 2, 3)

    def chunks(self, x: Tensor, K: int) -> Iterator[slice]:
        """All images at once: nothing is lifted, and a device is kept busy."""
        yield slice(0, x.shape[1])

    def push_part(self, saved: Saved, dx: Tensor | None, dU: Tensor | None, part: slice, y: Tensor) -> None:
        """dx ∗ w + x ∗ dw, written into y."""
        given = (dx, None if dx is None else saved.U, None if dU is None else saved.x.squeeze(-2), dU)
        conv_push(self._sizes(saved, y.shape[-2]), self.window, *given, self.precision, out=y)

    def pull_part(
        self, saved: Saved, gy: Tensor, part: slice, gx: Tensor | None, need_w: bool, total: bool
    ) -> Tensor | None:
        """x̄, written into gx if there is one, and Ū."""
        size = self._sizes(saved, gy.shape[-2])
        if gx is not None:
            conv_pull(size, self.window, gy, self.weights_back(saved), None, None, self.precision, out=gx)
        if not need_w:
            return None
        return conv_gram(size, self.window, saved.x.squeeze(-2), gy, None, None, total, self.precision)

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
        dx, dU = (kept.dx, kept.dU) if kept is not None else (None, None)
        if many is None and not (need_x and dU is not None) and not (need_w and dx is not None):
            return None, None
        size = self._sizes(saved, many.shape[-2] if many is not None else kept.K)
        x, single = saved.x.squeeze(-2), None if one is None else one.squeeze(-2)
        gx = gU = None
        if need_x and (many is not None or dU is not None):
            weights = (None if many is None else self.weights_back(saved), None if dU is None else single, dU)
            gx = conv_pull(size, self.window, many, *weights, self.precision)
        if need_w and (many is not None or dx is not None):
            images = (None if many is None else x, many, dx, None if dx is None else single)
            gU = conv_gram(size, self.window, *images, total, self.precision)
        return gx, gU

    def _sizes(self, saved: Saved, K: int) -> Sizes:
        T, N, H, W, _, C = saved.x.shape
        return Sizes(T, N, H, W, K, C, saved.U.shape[-1])
