"""Curvatures made of a matrix or of rows, in the place of one at tasks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tlxml_fast import CurvatureError
from tlxml_fast.kept import Checkpoints


def rotation(q: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix."""
    return torch.tensor(np.linalg.qr(np.random.default_rng(seed).normal(size=(q, q)))[0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal, float64."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


class Named(str):
    """A curvature that an operator has `others` of."""

    def describe(self) -> dict[str, str]:
        return {"curvature": str(self)}


class Rows:
    """C = RᵀR, as `tlxml_fast.curvature.rows.Rows` has it."""

    def __init__(self, R: Tensor):
        self.R, self.N = R.double(), len(R)

    def gram(self, weights: Tensor | None = None) -> Tensor:
        return (self.R if weights is None else self.R * weights) @ self.R.mT

    def push(self, V: Tensor) -> Tensor:
        return (self.R @ V.mT).mT

    def pull(self, W: Tensor) -> Tensor:
        return W @ self.R

    def squares(self) -> Tensor:
        return self.R.square().sum(0)


class Operator:
    """C + diag δ for a symmetric C, with its rows where they are given; counts its products, which are in `dtype`."""

    device = torch.device("cpu")

    def __init__(self, C: Tensor, decay: Tensor | float = 0.0, rows: Rows | None = None, dtype=torch.float64):
        self.C, self.q, self.dtype = (C + C.mT) / 2, len(C), dtype
        self.decay = torch.as_tensor(decay, dtype=torch.float64).expand(self.q)
        self._rows, self.by_rows, self.others = rows, rows is not None, {}
        self.passes = self.vectors = 0

    def factored(self, name, compute, settings=None):
        return compute()

    def checkpoints(self, name, settings, *given):
        return Checkpoints()

    def product(self, V: Tensor) -> Tensor:
        self.passes += 1
        self.vectors += len(V)
        return (V.to(self.dtype) @ self.C.to(self.dtype)).double() + V * self.decay

    def dense(self) -> Tensor:
        return self.C + self.decay.diag()

    def rows(self) -> Rows:
        if self._rows is None:
            raise CurvatureError("the Hessian matrix has no rows")
        return self._rows

    def with_curvature(self, curvature: str) -> Operator:
        return self.others[curvature]


def spectral(eigenvalues, decay: Tensor | float = 0.0, dtype=torch.float64) -> Operator:
    """C with that spectrum."""
    Q = rotation(len(eigenvalues))
    return Operator(Q * torch.as_tensor(eigenvalues, dtype=torch.float64) @ Q.mT, decay, dtype=dtype)


def of_rows(
    N: int, q: int, decay: Tensor | float = 0.0, dtype=torch.float64, condition: float = 1e3
) -> Operator:
    """C = RᵀR of N rows in uneven blocks, with singular values over that range, rounded to `dtype`."""
    m = min(N, q)
    sigma = torch.logspace(0, -np.log10(condition) / 2, m, dtype=torch.float64)
    left, right = torch.linalg.qr(normal(N, m, seed=1)).Q, torch.linalg.qr(normal(q, m, seed=2)).Q
    R = ((left * sigma) @ right.mT).to(dtype)
    return Operator(R.double().mT @ R.double(), decay, Rows(R), dtype)


def exact(operator: Operator, damping: float, B: Tensor) -> Tensor:
    """(C + diag δ + damping)⁻¹ b_k by numpy."""
    A = operator.dense().numpy() + damping * np.eye(operator.q)
    return torch.tensor(np.linalg.solve(A, B.numpy().T).T)
