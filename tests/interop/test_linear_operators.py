"""Other libraries' solvers on our curvature, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg, eigsh

import tlxml_fast as tlx
from tlxml_fast.errors import CurvatureError
from tlxml_fast.interop import curvlinops_operator, scipy_operator

TASKS = tlx.data.digits("all").sample(4, ways=3, shots=1, queries=2, seed=0)
LIN = tlx.linearize(tlx.MAML(tlx.models.mlp(64, 3, 3, seed=0, activation="tanh").double(), 0.5), TASKS)
SHIFT = 0.1


def dense(curvature):
    eye = torch.eye(LIN.q, dtype=torch.float64)
    return ((LIN.gnvp if curvature == "gauss_newton" else LIN.hvp)(eye) + SHIFT * eye).numpy()


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_scipys_operator_is_the_matrix(curvature):
    A = scipy_operator(LIN, curvature, SHIFT)
    X = np.random.default_rng(0).normal(size=(LIN.q, 3))
    np.testing.assert_allclose(A @ X, dense(curvature) @ X, atol=1e-12)
    np.testing.assert_allclose(A.H @ X[:, 0], dense(curvature) @ X[:, 0], atol=1e-12)


def test_scipys_operator_of_complex_vectors_and_of_none():
    A, G = scipy_operator(LIN, shift=SHIFT), dense("gauss_newton")
    X = np.random.default_rng(0).normal(size=(2, LIN.q, 3))
    Z = X[0] + 1j * X[1]
    np.testing.assert_allclose(A @ Z, G @ Z, atol=1e-12)
    np.testing.assert_allclose(A.H @ Z[:, 0], G @ Z[:, 0], atol=1e-12)
    assert (A @ np.zeros((LIN.q, 0))).shape == (LIN.q, 0)


def test_scipys_solvers_run_on_it():
    A, G = scipy_operator(LIN, shift=SHIFT), dense("gauss_newton")
    b = np.random.default_rng(1).normal(size=LIN.q)
    x, failed = cg(A, b, rtol=1e-10)
    assert failed == 0
    np.testing.assert_allclose(G @ x, b, atol=1e-8)
    top = eigsh(A, 3, return_eigenvectors=False, v0=np.ones(A.shape[0]))
    np.testing.assert_allclose(np.sort(top), np.linalg.eigvalsh(G)[-3:], rtol=1e-8)


def test_single_precision_stays_single():
    lin = tlx.linearize(LIN.learner, TASKS, dtype=torch.float32)
    assert (scipy_operator(lin) @ np.ones(lin.q)).dtype == np.float32


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_curvlinops_operator_is_the_matrix(curvature):
    pytest.importorskip("curvlinops")
    A, G = curvlinops_operator(LIN, curvature, SHIFT), torch.from_numpy(dense(curvature))
    X = torch.randn(LIN.q, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A @ X, G @ X)
    torch.testing.assert_close(A @ X[:, 0], G @ X[:, 0])
    listed = [
        x.reshape(shape)
        for x, shape in zip(X[:, 0].split(LIN.flat.sizes), LIN.flat.shapes.values(), strict=True)
    ]
    torch.testing.assert_close(torch.cat([y.flatten() for y in A @ listed]), G @ X[:, 0])
    np.testing.assert_allclose(A.to_scipy() @ X.numpy(), (G @ X).numpy(), atol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_curvlinops_inverse_runs_on_it():
    curvlinops = pytest.importorskip("curvlinops")
    A, G = curvlinops_operator(LIN, shift=SHIFT), torch.from_numpy(dense("gauss_newton"))
    b = torch.randn(LIN.q, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = curvlinops.CGInverseLinearOperator(A, eps=1e-12, tolerance=1e-6) @ b
    torch.testing.assert_close(G @ x, b, rtol=1e-5, atol=1e-5)


def test_an_unknown_curvature_is_named():
    with pytest.raises(CurvatureError, match="curvature is one of gauss_newton, hessian, not 'fisher'"):
        scipy_operator(LIN, "fisher")
