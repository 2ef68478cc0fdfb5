"""Curvature as a linear operator of scipy or curvlinops, so that their solvers run on these kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ..errors import CurvatureError, TlxError
from ..linearize import Linearization

if TYPE_CHECKING:
    from curvlinops._torch_base import PyTorchLinearOperator

CURVATURES = ("gauss_newton", "hessian")


def scipy_operator(lin: Linearization, curvature: str = "gauss_newton", shift: float = 0.0) -> LinearOperator:
    """(1/T) Σ_t J_tᵀΛ_tJ_t + shift·I, or with ∇²L_t, as a symmetric scipy `LinearOperator` [q, q].

    For `scipy.sparse.linalg`: `cg`, `eigsh`, `svds`, …; several vectors go through the kernels together. In the
    linearization's dtype; of complex vectors, the real and the imaginary part each.

    shift   weight decay and damping, δ + λ

    Raises CurvatureError for an unknown curvature.
    """
    product = _product(lin, curvature, shift)
    dtype = torch.empty(0, dtype=lin.dtype).numpy().dtype

    def matmat(X: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(X):
            return matmat(X.real) + 1j * matmat(X.imag)
        return product(torch.from_numpy(np.ascontiguousarray(X.T))).mT.cpu().numpy().astype(dtype)

    def matvec(x: np.ndarray) -> np.ndarray:
        return matmat(x.reshape(-1, 1))[:, 0]

    return LinearOperator((lin.q, lin.q), matvec, matvec, matmat, dtype, matmat)


def curvlinops_operator(
    lin: Linearization, curvature: str = "gauss_newton", shift: float = 0.0
) -> PyTorchLinearOperator:
    """`scipy_operator`'s matrix as a curvlinops `PyTorchLinearOperator` over the list of parameters.

    For its inverses, its estimators of traces, diagonals and norms, its spectral densities and submatrices.

    Raises CurvatureError for an unknown curvature, and TlxError without curvlinops.
    """
    try:
        from curvlinops._torch_base import PyTorchLinearOperator
    except ImportError:
        raise TlxError("curvlinops_operator needs curvlinops: pip install curvlinops-for-pytorch") from None
    product, shapes = _product(lin, curvature, shift), list(lin.flat.shapes.values())

    class TaskCurvature(PyTorchLinearOperator):
        """Symmetric, on the parameters in the order of `learner.parameters()`."""

        SELF_ADJOINT = True

        def __init__(self) -> None:
            super().__init__(shapes, shapes)

        @property
        def device(self) -> torch.device:
            """Where the tasks are."""
            return lin.device

        @property
        def dtype(self) -> torch.dtype:
            """That of the linearization."""
            return lin.dtype

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            V = torch.cat([x.flatten(0, -2) for x in X]).mT
            parts = product(V).mT.split(lin.flat.sizes)
            return [part.reshape(x.shape) for part, x in zip(parts, X, strict=True)]

        def _adjoint(self) -> PyTorchLinearOperator:
            return self  # the adjoints of curvlinops' inverses ask for it, SELF_ADJOINT or not

    return TaskCurvature()


def _product(lin: Linearization, curvature: str, shift: float) -> Callable[[Any], Tensor]:
    if curvature not in CURVATURES:
        raise CurvatureError(f"curvature is one of {', '.join(CURVATURES)}, not {curvature!r}")
    apply = lin.gnvp if curvature == "gauss_newton" else lin.hvp

    def product(V: Tensor) -> Tensor:
        V = V.to(lin.device, lin.dtype)
        return apply(V) + shift * V if len(V) else V  # a matrix may have no columns

    return product
