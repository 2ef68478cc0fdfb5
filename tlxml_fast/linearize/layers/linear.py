"""torch.nn.Linear."""

from __future__ import annotations

from torch import Tensor

from .product import Product


class Linear(Product):
    """y = x wᵀ + b; w is [O, I]. Lifting is a change of view."""

    def output_space(self, x: Tensor) -> tuple[int, ...]:
        """As the input's."""
        return tuple(x.shape[1:-2])

    def lift(self, x: Tensor) -> Tensor:
        """[1, T, N…, K, I]."""
        return x.flatten(1, -3)[None]

    def lift_t(self, V: Tensor, x: Tensor) -> None:
        """Back into x."""
        x.copy_(V[0].view(x.shape))

    def products_in(self, y: Tensor) -> Tensor:
        """The output is the product."""
        return self.out_t(y)

    def out_t(self, y: Tensor) -> Tensor:
        """[1, T, N…, K, O]."""
        return y.flatten(1, -3)[None]

    def kernel(self, w: Tensor) -> Tensor:
        """wᵀ."""
        return w.permute(0, 3, 1, 2)[None]

    def kernel_t(self, U: Tensor) -> Tensor:
        """w̄."""
        return U[0].permute(0, 2, 3, 1)
