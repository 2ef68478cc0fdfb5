"""Influence scores by general tools: gradients by torch.func, and three ways to solve with G + damping·I."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vjp, vmap

from .baselines import Plain, Product, at_once, curvlinops, vmapped_gradients
from .cg import Solved, conjugate_gradients

Solve = Callable[[Tensor], Tensor]
"""From right-hand sides [K, q] to solutions."""

CG = "curvlinops + CG, torch.func gradients"
PRODUCTS = "curvlinops, dense G by products"
PULL_BACKS = "torch.func, dense G by pull-backs"

# Columns of the identity in a product.
COLUMNS = 128
# Of vmap(grad): on two cores the fastest of those in the table for the small MLP.
GRADIENTS_AT_ONCE = 256


class General:
    """Scores of test tasks by training tasks. What the last solutions were made from is kept.

    tolerance  at which CG stops: the largest ‖(G + damping·I)x − b‖/‖b‖ of its recursion
    """

    def __init__(self, train: Plain, test: Plain, damping: float, tolerance: float):
        self.train, self.test, self.damping, self.tolerance = train, test, damping, tolerance
        self.solved: Solved | None = None
        self.matrix: Tensor | None = None

    def product(self, K: int) -> Product:
        """curvlinops'. Raises ImportError where it is not installed."""
        return curvlinops(self.train, K)

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        """Scores by name, each from nothing but tasks and parameters."""
        return {
            CG: lambda: self.scores(self.by_cg(self.product(len(self.test)))),
            PRODUCTS: lambda: self.scores(
                self.by_matrix(lambda: matrix_by_products(self.product(COLUMNS), self.train.omega))
            ),
            PULL_BACKS: lambda: self.scores(self.by_matrix(lambda: matrix_by_pull_backs(self.train))),
        }

    def scores(self, solve: Solve) -> Tensor:
        """I_perf, [test, train]."""
        return -(solve(gradients(self.test)) @ gradients(self.train).mT)

    def by_cg(self, product: Product) -> Solve:
        """Conjugate gradients with a product of G."""

        def solve(B: Tensor) -> Tensor:
            self.solved = conjugate_gradients(product, B, self.damping, self.tolerance)
            return self.solved.x

        return solve

    def by_matrix(self, make: Callable[[], Tensor]) -> Solve:
        """A Cholesky factor, in float64, of G + damping·I."""

        def solve(B: Tensor) -> Tensor:
            self.matrix = make()
            A = self.matrix.double()
            A.diagonal().add_(self.damping)
            return torch.cholesky_solve(B.double().mT, torch.linalg.cholesky(A)).mT.to(B)

        return solve

    def residual(self, product: Product, x: Tensor, B: Tensor) -> float:
        """The largest ‖(G + damping·I)x_k − b_k‖/‖b_k‖."""
        return float(((product(x) + self.damping * x - B).norm(dim=1) / B.norm(dim=1)).max())


def gradients(plain: Plain) -> Tensor:
    """∇L_t of every task, [T, q]."""
    return vmapped_gradients(plain, GRADIENTS_AT_ONCE)()


def matrix_by_products(product: Product, like: Tensor) -> Tensor:
    """G from products with the identity, `COLUMNS` at a time, in the dtype of ω."""
    return torch.cat([product(part) for part in torch.eye(len(like)).to(like).split(COLUMNS)])


def matrix_by_pull_backs(plain: Plain) -> Tensor:
    """G = (1/T) Σ RᵀR, R the pull-backs of the n(C−1) columns of a factor of Λ."""

    def rows(sx: Tensor, sy: Tensor, qx: Tensor) -> Tensor:
        logits, pull = vjp(lambda w: plain(w, sx, sy, qx), plain.omega)
        eye = torch.eye(len(logits)).to(logits)
        cotangents = torch.einsum("mcr,mk->mrkc", output_factor(logits), eye).flatten(0, 1)  # query m's alone
        return vmap(pull)(cotangents)[0]

    G = plain.omega.new_zeros(len(plain.omega), len(plain.omega))
    for part in plain.chunks(at_once(plain.qx.shape[1] * (plain.ways - 1), G.device)):
        R = vmap(rows)(part.sx, part.sy, part.qx).detach().flatten(0, 1)
        G.addmm_(R.mT, R)
    return G / len(plain)


def output_factor(logits: Tensor) -> Tensor:
    """B [n, C, C−1] with Λ = blockdiag(B_m B_mᵀ): a Cholesky factor but for the last class, whose rows follow."""
    p = logits.softmax(-1)[..., :-1]
    L = torch.linalg.cholesky((torch.diag_embed(p) - p[..., None] * p[..., None, :]) / len(logits))
    return torch.cat([L, -L.sum(-2, keepdim=True)], -2)
