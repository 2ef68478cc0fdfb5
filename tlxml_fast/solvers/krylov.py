"""Block Lanczos: eigenvalues at the ends of a spectrum, and their vectors, from products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kept import Checkpoints, Tensors
from ..profiling import span
from .products import gaussian, generator


@dataclass(frozen=True)
class Ritz:
    """Approximate eigenpairs in the order asked for: A v_i ≈ θ_i v_i."""

    values: Tensor
    """θ, [m]."""
    vectors: Tensor
    """Orthonormal rows, [m, q]."""
    residuals: Tensor
    """‖A v_i − θ_i v_i‖, [m]: an eigenvalue lies within that of θ_i."""
    converged: bool


def block_lanczos(
    product: Callable[[Tensor], Tensor],
    q: int,
    count: int,
    order: Callable[[Tensor], Tensor],
    *,
    tol: Callable[[Tensor], Tensor],
    negligible: float,
    block: int,
    largest_basis: int,
    most_passes: int,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
) -> Ritz:
    """The first `count` eigenpairs, in `order`, of a symmetric A known by its products.

    Full reorthogonalisation, twice; thick restart at `largest_basis` vectors. Memory: the basis, and two blocks; work
    beside the products: 8·q·block·basis flops a pass. (Golub and Underwood 1977; Wu and Simon 2000, thick restart.)

    order       eigenvalues → their indices, those wanted most first
    tol         eigenvalues → the residual each must reach
    negligible  what a new direction adds below this share of the largest |θ| is rounding
    checkpoints where the state is kept, and found
    """
    checkpoints, random = checkpoints or Checkpoints(), generator(seed)
    block = min(block, q)
    largest_basis = min(q, max(largest_basis, count + 3 * block))
    V = torch.empty(largest_basis, q, dtype=torch.float64, device=device)
    T = torch.zeros(largest_basis, largest_basis, dtype=torch.float64, device=device)
    found = checkpoints.latest()
    if found is None:
        Q, n, passes = orthonormal(gaussian(block, q, random, device), V[:0]), 0, 0
    else:
        Q, n, passes = found.pop("Q"), len(found["V"]), int(found["passes"])
        V[:n], T[:n, :n] = found.pop("V"), found.pop("T")
        random.set_state(found["random"].cpu())

    def state() -> Tensors:
        numbers = {"passes": torch.tensor(passes), "random": random.get_state()}
        return {"V": V[:n], "T": T[:n, :n], "Q": Q, **numbers}

    while True:
        m = n + len(Q)
        V[n:m] = Q
        W, passes = product(Q), passes + 1
        with span("reorthogonalisation", 8 * len(Q) * m * q, 16 * m * q, dtype=torch.float64):
            H = W @ V[:m].mT
            W = W - H @ V[:m]
            again = W @ V[:m].mT
            W = W - again @ V[:m]
        H += again
        T[n:m, :m] = H  # the lower triangle, which is all that eigh reads
        theta, S = torch.linalg.eigh(T[:m, :m])
        scale = float(theta.abs().max())
        Q, beta = _independent(W, negligible * scale)
        residuals = (S[n:m].mT @ beta).norm(dim=1)
        ranked = order(theta)
        wanted = ranked[:count]
        done = len(wanted) == min(count, q) and bool((residuals <= tol(theta))[wanted].all())
        if done or passes == most_passes or m == q:
            return Ritz(theta[wanted], S[:, wanted].mT @ V[:m], residuals[wanted], done)
        n = m
        if largest_basis == q:
            Q = Q[: q - m]
        elif m + max(len(Q), 1) > largest_basis:
            n = min(count + block, largest_basis - block)
            kept = ranked[:n]
            V[:n] = S[:, kept].mT @ V[:m]
            T.zero_()
            T[:n, :n] = theta[kept].diag()
        if not len(Q):  # an invariant subspace: go on with what is orthogonal to it
            Q = orthonormal(gaussian(min(block, largest_basis - n), q, random, device), V[:n]).contiguous()
        checkpoints.offer(state)


def orthonormal(W: Tensor, V: Tensor) -> Tensor:
    """Rows of W made orthonormal, and orthogonal to the orthonormal rows of V."""
    for _ in range(2):
        W = W - (W @ V.mT) @ V
        W = torch.linalg.qr(W.mT).Q.mT
    return W


def _independent(W: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """W ≈ βQ with orthonormal rows Q, of directions whose singular value exceeds the cutoff."""
    Q, R = torch.linalg.qr(W.mT)
    U, sigma, Y = torch.linalg.svd(R.mT, full_matrices=False)
    kept = sigma > cutoff
    return Y[kept] @ Q.mT, U[:, kept] * sigma[kept]
