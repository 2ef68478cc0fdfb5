"""What curvlinops asks of an operator, and everything it ships that takes one, on ours against dense matrices.

The estimators draw random vectors: from the same seed they give the same of our operator as of the matrix.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tlxml_fast as tlx
from tlxml_fast.backend.conformance import CASES
from tlxml_fast.interop import curvlinops_operator

curvlinops = pytest.importorskip("curvlinops")
examples = pytest.importorskip("curvlinops.examples")
spectrum = pytest.importorskip("curvlinops.papyan2020traces.spectrum")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

CASE = next(case for case in CASES if case.name == "MAML, tanh, three steps")
LIN = tlx.linearize(CASE.learner(), CASE.tasks)
SHAPES = list(LIN.flat.shapes.values())
SHIFT = {"gauss_newton": 0.3, "hessian": 2.0}  # beyond the most negative eigenvalue


@pytest.fixture(params=["gauss_newton", "hessian"])
def pair(request):
    """Our operator plus a shift that makes it positive definite, and the matrix that it is, by torch.func."""
    shift = SHIFT[request.param]
    matrix = getattr(CASE.truth, request.param).mean(0) + shift * torch.eye(LIN.q, dtype=torch.float64)
    assert torch.linalg.eigvalsh(matrix)[0] > 0.1
    return curvlinops_operator(LIN, request.param, shift), matrix


def vectors(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(estimator, *given, **named):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return estimator(*given, **named)


def listed(X):
    """Columns [q, K], or a vector [q], as one tensor a parameter."""
    return [x.reshape(*shape, *X.shape[1:]) for x, shape in zip(X.split(LIN.flat.sizes), SHAPES, strict=True)]


def assert_is(A, matrix):
    """A @ X is matrix @ X in every format that curvlinops and scipy take, of one vector, several, or none."""
    assert tuple(A.shape) == tuple(matrix.shape)
    for X in (vectors(A.shape[1]), vectors(A.shape[1], 3), vectors(A.shape[1], 0)):
        before, truth = X.clone(), matrix @ X
        torch.testing.assert_close(A @ X, truth)
        assert torch.equal(X, before)
        if X.numel():
            found = A.to_scipy() @ X.numpy()
            assert isinstance(found, np.ndarray)
            torch.testing.assert_close(torch.from_numpy(found), truth)


def test_products_and_the_adjoint(pair):
    A, matrix = pair
    assert (A.device, A.dtype) == (torch.device("cpu"), torch.float64)
    assert_is(A, matrix)
    assert_is(A.adjoint(), matrix.T)
    assert torch.equal(A @ vectors(LIN.q, 2), A @ vectors(LIN.q, 2))
    for X in (vectors(LIN.q), vectors(LIN.q, 3)):
        for found, truth in zip(A @ listed(X), listed(matrix @ X), strict=True):
            torch.testing.assert_close(found, truth)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(LIN.q - 1),
        torch.zeros(LIN.q, 2, 2),
        [torch.zeros(shape) for shape in SHAPES[1:]],
        [torch.zeros(*shape, 2 + i) for i, shape in enumerate(SHAPES)],
        np.zeros(LIN.q),
    ],
    ids=["too short", "no matrix", "a parameter missing", "columns that differ", "an array"],
)
def test_what_is_no_vector_is_refused(pair, wrong):
    with pytest.raises(ValueError, match="must"):
        pair[0] @ wrong


def test_sums_products_and_multiples(pair):
    A, matrix = pair
    for made, truth in (
        (A + A, 2 * matrix),
        (A - 0.5 * A, 0.5 * matrix),
        (A * 3, 3 * matrix),
        (A @ A @ A, matrix @ matrix @ matrix),
    ):
        assert_is(made, truth)
        assert_is(made.adjoint(), truth.T)


def test_submatrices(pair):
    A, matrix = pair
    rows, columns = list(range(1, LIN.q, 2)), list(range(0, LIN.q, 3))
    part = curvlinops.SubmatrixLinearOperator(A, rows, columns)
    assert_is(part, matrix[rows][:, columns])
    assert_is(part.adjoint(), matrix[rows][:, columns].T)


@pytest.mark.parametrize("of_the_adjoint", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CGInverseLinearOperator", {"eps": 0, "tolerance": 1e-10, "max_iter": 1000}),
        ("LSMRInverseLinearOperator", {"atol": 1e-12, "btol": 1e-12, "maxiter": 1000}),
        ("NeumannInverseLinearOperator", {"num_terms": 1000}),
    ],
)
def test_inverses(pair, name, options, of_the_adjoint):
    A, matrix = pair
    if name.startswith("Neumann"):
        options = {**options, "scale": 1.9 / float(torch.linalg.eigvalsh(matrix)[-1])}
    inverse = getattr(curvlinops, name)(A, **options)
    inverse = inverse.adjoint() if of_the_adjoint else inverse
    X = vectors(LIN.q, 3)
    torch.testing.assert_close(inverse @ X, torch.linalg.solve(matrix, X), rtol=1e-6, atol=1e-6)
    found = torch.from_numpy(inverse.to_scipy() @ X.numpy())
    torch.testing.assert_close(found, torch.linalg.solve(matrix, X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["hutchinson_trace", "hutchpp_trace", "xtrace", "hutchinson_diag", "xdiag", "hutchinson_squared_fro"],
)
def test_estimators(pair, name):
    A, matrix = pair
    estimator = getattr(curvlinops, name)
    torch.testing.assert_close(seeded(estimator, A, 12), seeded(estimator, matrix, 12))


@pytest.mark.parametrize("log", ["", "log_"])
def test_spectral_densities(pair, log):
    A, matrix = pair
    values = torch.linalg.eigvalsh(matrix)
    ends = (float(values[0]), float(values[-1]))
    density = getattr(curvlinops, f"lanczos_approximate_{log}spectrum")
    cached = getattr(curvlinops, f"LanczosApproximate{log.title().rstrip('_')}SpectrumCached")

    def cachedly(operator):
        return getattr(cached(operator, 8, ends), f"approximate_{log}spectrum")(num_repeats=2)

    truth = examples.TensorLinearOperator(matrix)
    for found, expected in (
        (seeded(density, A, 8, boundaries=ends), seeded(density, truth, 8, boundaries=ends)),
        (seeded(cachedly, A), seeded(cachedly, truth)),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("boundaries", ["approximate_boundaries", "approximate_boundaries_abs"])
def test_ends_of_the_spectrum(pair, boundaries):
    A, matrix = pair
    values = torch.linalg.eigvalsh(matrix)
    found = getattr(spectrum, boundaries)(A, tol=1e-8)
    assert found == pytest.approx((float(values[0]), float(values[-1])))


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_single_precision(curvature):
    lin = tlx.linearize(CASE.learner(), CASE.tasks, dtype=torch.float32)
    A, x = curvlinops_operator(lin, curvature), vectors(LIN.q).float()
    assert A.dtype == (A @ x).dtype == torch.float32
    truth = getattr(CASE.truth, curvature).mean(0).float() @ x
    torch.testing.assert_close(A @ x, truth, rtol=1e-4, atol=1e-4)
