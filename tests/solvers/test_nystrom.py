"""Nystrom: exact at full rank, the oracle's formula below it, and certified against the true operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import near
from problems import exact, normal, of_rows, spectral

from tlxml_fast import CurvatureError, Nystrom, Relative
from tlxml_fast.solvers.nystrom import nystrom_factor
from tlxml_fast.solvers.products import Products

pytestmark = pytest.mark.usefixtures("one_thread")

Q = 31
UNEVEN = torch.linspace(0.01, 0.3, Q, dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.0, 0.05, UNEVEN], ids=["none", "some", "uneven"])
@pytest.mark.parametrize("N", [1, 6, 40])
def test_exact_at_the_rank_of_the_curvature(N, decay):
    op, B = of_rows(N, Q, decay), normal(4, Q)
    X, certificate = Nystrom(min(N + 2, Q), 1e-2).fit(op).solve(B)
    near(X, exact(op, 1e-2, B), 1e-9)
    assert certificate.worst < 1e-9
    assert not certificate.exact


@pytest.mark.parametrize("decay", [0.05, UNEVEN], ids=["some", "uneven"])
def test_below_it_the_formula_of_the_sketch(decay):
    op, B = of_rows(Q, Q, decay), normal(4, Q)
    fitted = Nystrom(5, 1e-2).fit(op)
    X, certificate = fitted.solve(B)
    sketch = fitted.U.mT * fitted.values @ fitted.U
    A = (sketch + op.decay.diag() + 1e-2 * torch.eye(Q, dtype=torch.float64)).numpy()
    near(X, torch.tensor(np.linalg.solve(A, B.numpy().T).T), 1e-11)
    want = (X @ op.dense() + 1e-2 * X - B).norm(dim=1) / B.norm(dim=1)
    assert certificate.residuals == pytest.approx(want.tolist())
    assert certificate.worst > 1e-3


def test_the_sketch_is_nystroms():
    op = of_rows(Q, Q, 0.05)
    values, U = nystrom_factor(Products(op), 5, seed=3)
    omega = torch.linalg.qr(
        torch.randn(5, Q, generator=torch.Generator().manual_seed(3), dtype=torch.float64).mT
    ).Q.mT
    C, O = op.C.numpy(), omega.numpy().T
    near(U.mT * values @ U, torch.tensor(C @ O @ np.linalg.pinv(O.T @ C @ O) @ O.T @ C), 1e-11)
    near(U @ U.mT, torch.eye(5, dtype=torch.float64), 1e-12)
    assert (values.diff() <= 0).all()


def test_the_sketch_never_exceeds_the_curvature_and_grows_with_rank():
    op = of_rows(Q, Q)
    errors = []
    for rank in (2, 8, 20):
        values, U = nystrom_factor(Products(op), rank, seed=0)
        gap = torch.linalg.eigvalsh(op.C - U.mT * values @ U)
        assert gap[0] > -1e-12
        errors.append(float(gap[-1]))
    assert errors[0] > errors[1] > errors[2]


def test_counts():
    op = of_rows(40, Q)
    fitted = Nystrom(6, 0.1).fit(op)
    assert (fitted.describe()["passes"], fitted.describe()["vectors"]) == (op.passes, op.vectors)
    before = op.passes
    fitted.at(Relative(1e-3))
    assert op.passes == before
    assert fitted.solve(normal(9, Q)).certificate.passes == op.passes - before == 1


def test_spectrum_and_effective_rank():
    op, delta = of_rows(6, Q, 0.05), 0.05
    certificate = Nystrom(10, Relative(1e-2)).fit(op).solve(normal(1, Q)).certificate
    values = np.linalg.eigvalsh(op.dense().numpy())
    assert certificate.largest == pytest.approx(values[-1], rel=1e-6)
    assert certificate.damping == pytest.approx(1e-2 * values[-1], rel=1e-6)
    assert certificate.smallest == pytest.approx(delta)
    assert certificate.effective_rank == pytest.approx(
        (values / (values + certificate.damping)).sum(), rel=1e-6
    )


def test_in_float32():
    op, B = of_rows(6, Q, dtype=torch.float32), normal(4, Q)
    near(Nystrom(10, 1e-2).fit(op).solve(B).X, exact(op, 1e-2, B), 1e-3)


def test_the_same_twice_and_another_with_another_seed():
    one, two, other = (Nystrom(5, 0.1, seed).fit(of_rows(Q, Q)).solve(normal(2, Q)).X for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


REFUSED = {
    "no damping": (lambda: Nystrom(3, 0.0).fit(of_rows(7, Q)), "matrix is singular"),
    "indefinite": (
        lambda: Nystrom(3, 5.0).fit(spectral([-3.0, 1.0, 2.0])),
        "positive semi-definite curvature",
    ),
    "no rank": (lambda: Nystrom(0, 1.0), "rank is a whole number of at least 1"),
    "rank": (lambda: Nystrom(Q + 1, 1.0).fit(of_rows(7, Q)), "there are 31 meta-parameters"),
    "NaN": (
        lambda: Nystrom(3, 1.0).fit(spectral([np.nan, 1.0, 2.0])),
        "product with the curvature is not finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    attempt, message = REFUSED[case]
    with pytest.raises(CurvatureError, match=message):
        attempt()
