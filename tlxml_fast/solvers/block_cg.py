"""Block conjugate gradients in the form that survives converged and dependent right-hand sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kept import Checkpoints, Tensors
from ..profiling import span

# A direction is dropped once what it adds to the K residuals is below this share of their goal, over K.
DROPPED = 0.1


@dataclass(frozen=True)
class Run:
    """Where the iteration stopped."""

    X: Tensor
    """[K, q]."""
    iterations: int
    negative: tuple[Tensor, float] | None
    """A direction p [q] and pᵀAp ≤ 0, where the iteration met one and went no further."""


def block_cg(
    product: Callable[[Tensor], Tensor],
    B: Tensor,
    scale: Tensor,
    tol: float,
    measure: Callable[[Tensor], Tensor],
    most: int,
    checkpoints: Checkpoints,
    say: Callable[[str], None],
) -> Run:
    """Solves A x_k = b_k for a positive definite A known by its products, one an iteration for all right-hand sides.

    BCGrQ (Dubrulle, Retooling the method of block conjugate gradients, ETNA 2001; after O'Leary 1980). The residuals
    are kept as CᵀQ with orthonormal Q [s, q], s ≤ K, so that neither dependent right-hand sides nor those that
    converge early make anything singular. With P = Q at first:

        α = (P A Pᵀ)⁻¹    X ← X + CᵀαP    ζᵀQ ← Q − αAP (QR)    C ← ζC    P ← Q + ζP

    Directions that matter to no right-hand side any more are dropped, by the singular values of C. Beside the product
    12qs² + 2qsK flops an iteration; six blocks of [K, q].

    scale    [K], positive: the norms that the recurrence's residuals are relative to
    tol      stop where every `measure` is at most that
    measure  residuals [K, q] → their relative size in the norm asked for, [K]; taken where the recurrence's own is at
             most tol, and then at every further reduction that it calls for
    most     iterations
    checkpoints  where the state is kept, and found
    say      told how far the iteration has come, before each product
    """
    found = checkpoints.latest()
    if found is None:
        X, aim, iteration, finished = (
            torch.zeros_like(B, memory_format=torch.contiguous_format),
            tol,
            0,
            False,
        )
        Q, _, C = _orthonormal(B, torch.eye(len(B), dtype=B.dtype, device=B.device), scale, aim)
        P = Q
    else:
        X, Q, C, P = (found.pop(name, B[:0]) for name in "XQCP")
        aim, iteration, finished = float(found["aim"]), int(found["iteration"]), bool(found["finished"])

    def state() -> Tensors:
        numbers = {"aim": aim, "iteration": iteration, "finished": finished}
        each = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
        return {"X": X, **each} if finished else {"X": X, "Q": Q, "C": C, "P": P, **each}

    while len(Q) and iteration < most and not finished:
        say(f"iteration {iteration + 1}, residual {float((C.norm(dim=0) / scale).max()):.0e}")
        T = product(P)
        iteration += 1
        s, q = P.shape
        with span("block recurrences", 12 * q * s * s + 2 * q * s * len(B), dtype=torch.float64):
            H = P @ T.mT
            H = (H + H.mT) / 2
            L, failed = torch.linalg.cholesky_ex(H)
            if int(failed):
                return Run(X, iteration, _lowest(H, P))
            alpha = torch.cholesky_inverse(L)
            X += (alpha @ C).mT @ P
            Q, zeta, C = _orthonormal(Q - alpha @ T, C, scale, aim)
            P = Q + zeta @ P
        if float((C.norm(dim=0) / scale).max()) <= aim:
            worst = float(measure(C.mT @ Q).max())
            finished = worst <= tol
            aim *= 1 if finished else tol / worst / 2
        checkpoints.offer(state)
    return Run(X, iteration, None)


def _orthonormal(M: Tensor, C: Tensor, scale: Tensor, aim: float) -> tuple[Tensor, Tensor, Tensor]:
    """M ≈ ζᵀQ with orthonormal rows Q [s', q], and ζC: without the directions that hardly matter to any of CᵀM."""
    K = C.shape[1]
    Q, R = torch.linalg.qr(M.mT)
    C = R @ C
    U, sigma, _ = torch.linalg.svd(C / scale, full_matrices=False)
    U = U[:, sigma > DROPPED * aim / K]
    return U.mT @ Q.mT, U.mT @ R, U.mT @ C


def _lowest(H: Tensor, P: Tensor) -> tuple[Tensor, float]:
    """The combination p of P's rows of least pᵀAp, relative to pᵀp, and pᵀAp; H = P A Pᵀ."""
    U, sigma, _ = torch.linalg.svd(P, full_matrices=False)
    whitener = U / sigma
    values, vectors = torch.linalg.eigh(whitener.mT @ H @ whitener)
    return (whitener @ vectors[:, 0]) @ P, float(values[0])
