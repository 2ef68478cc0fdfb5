"""Lanczos and the ends of a spectrum: numpy's eigenvalues, repeated, clustered, negative and zero ones too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import near
from problems import normal, of_rows, spectral

from tlxml_fast import CurvatureError, Dense, InfluenceWarning, Lanczos
from tlxml_fast.solvers import extreme_eigenvalues
from tlxml_fast.solvers.dual import Spectral
from tlxml_fast.solvers.krylov import block_lanczos
from tlxml_fast.solvers.low_rank import DiagonalPlusRows, Factor
from tlxml_fast.solvers.products import Products

pytestmark = pytest.mark.usefixtures("one_thread")

Q = 80
SPECTRA = {
    "decaying": torch.logspace(0, -5, Q),
    "indefinite": torch.cat([torch.logspace(0, -3, Q - 6), -torch.logspace(-0.11, -2, 6)]),
    "low rank": torch.cat([torch.linspace(1, 2, 12), torch.zeros(Q - 12)]),
    "repeated": torch.cat([torch.full((5,), 2.0), torch.linspace(0.1, 1, Q - 5)]),
    "flat": torch.linspace(1, 1.1, Q),
    "identity": torch.full((40,), 3.0),
    "one": torch.tensor([3.0]),
}


@pytest.mark.parametrize("negative", ["drop", "keep", "abs"])
@pytest.mark.parametrize("rank", [1, 4, 9])
@pytest.mark.parametrize("name", ["decaying", "indefinite", "low rank"])
def test_as_dense(name, rank, negative):
    op, B = spectral(SPECTRA[name].double()), normal(3, Q)
    fitted = Lanczos(rank, negative).fit(op)
    X, certificate = fitted.solve(B)
    dense = Dense(rank=rank, negative=negative).fit(op)
    near(X, dense.solve(B).X, 1e-6)
    assert certificate.residuals == pytest.approx(dense.solve(B).certificate.residuals, rel=1e-6)
    assert not certificate.exact
    report = fitted.describe()
    largest = sorted(dense.describe()["eigenvalues"], key=abs)[-rank:]
    assert report["eigenvalues"] == pytest.approx(sorted(largest))
    assert report["n_kept"] == dense.describe()["n_kept"]
    assert (report["passes"], report["vectors"]) == (op.passes, op.vectors)


@pytest.mark.parametrize("rank", [1, 3, 30, 7])
@pytest.mark.parametrize("name", ["repeated", "flat", "identity", "one"])
def test_eigenvalues_however_they_lie(name, rank):
    spectrum = SPECTRA[name].double()
    rank = min(rank, len(spectrum))
    fitted = Lanczos(rank).fit(spectral(spectrum))
    assert fitted.describe()["eigenvalues"] == pytest.approx(
        spectrum.sort().values[-rank:].tolist(), rel=1e-8
    )
    near(fitted.vectors @ fitted.vectors.mT, torch.eye(rank, dtype=torch.float64), 1e-12)
    assert fitted.describe()["worst_ritz_residual"] <= 1e-8


def test_far_fewer_vectors_than_parameters():
    op = spectral(torch.logspace(0, -6, 400))
    Lanczos(10).fit(op)
    assert op.vectors < 200


def test_restarts_bound_the_basis():
    op = spectral(torch.linspace(1, 1.3, 300))
    fitted = Lanczos(2, max_iter=1000).fit(op)
    assert op.vectors > 5 * (2 * 2 + 4 * 2)
    assert fitted.describe()["eigenvalues"][-1] == pytest.approx(1.3)


def test_what_does_not_converge():
    spectrum = torch.linspace(1, 1.3, 300)
    with pytest.raises(
        CurvatureError, match=r"of 2 eigen-directions did not converge: .* raise max_iter or tol"
    ):
        Lanczos(2, max_iter=4).fit(spectral(spectrum))
    with pytest.warns(InfluenceWarning, match="did not converge"):
        fitted = Lanczos(2, max_iter=4, allow_unconverged=True).fit(spectral(spectrum))
    assert not fitted.solve(normal(1, 300)).certificate.converged


def test_the_residual_of_a_solution_is_bounded_without_a_pass():
    op = spectral(SPECTRA["decaying"])
    fitted = Lanczos(3, tol=0.3).fit(op)
    before, B = op.passes, torch.cat([fitted.vectors, normal(2, Q), torch.zeros(1, Q)])
    X, certificate = fitted.solve(B)
    assert op.passes == before
    true = (X @ op.dense() - B).norm(dim=1)[:-1] / B[:-1].norm(dim=1)
    assert (true[:3] > 1e-6).all()
    assert (true <= torch.tensor(certificate.residuals[:-1], dtype=true.dtype) + 1e-12).all()
    assert certificate.residuals[-1] == 0


def test_in_float32():
    op = spectral(torch.logspace(0, -3, Q), dtype=torch.float32)
    want = Dense(rank=6).fit(op).solve(normal(2, Q)).X
    near(Lanczos(6).fit(op).solve(normal(2, Q)).X, want, 1e-2)


REFUSED = {
    "above the numerical rank": (
        lambda: Lanczos(13).fit(spectral(SPECTRA["low rank"])),
        "rank is 13, and only 12 eig",
    ),
    "above the parameters": (
        lambda: Lanczos(41).fit(spectral(SPECTRA["identity"])),
        "there are 40 meta-parameters",
    ),
    "negative": (
        lambda: Lanczos(9, "error").fit(spectral(SPECTRA["indefinite"])),
        "eigenvalues are negative, the low",
    ),
    "nothing left": (lambda: Lanczos(1).fit(spectral([-3.0, 1.0])), "no eigenvalue is left"),
    "unknown negative": (lambda: Lanczos(1, "flip"), "negative is one of drop, keep, abs, error"),
    "too few passes": (
        lambda: Lanczos(33, max_iter=2).fit(spectral(SPECTRA["flat"])),
        "2 passes of 16 vectors cannot",
    ),
    "damping": (lambda: Lanczos(1).fit(spectral([3.0, 1.0])).at(0.1), "has no damping"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    attempt, message = REFUSED[case]
    with pytest.raises(CurvatureError, match=message):
        attempt()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_extreme_eigenvalues(name, dtype):
    spectrum = SPECTRA[name]
    op = spectral(spectrum, 0.25, dtype)
    products = Products(op)
    ends = extreme_eigenvalues(op, products)
    assert ends.largest == pytest.approx(float(spectrum.max()) + 0.25, rel=1e-4)
    assert ends.smallest == pytest.approx(float(spectrum.min()) + 0.25, abs=3e-2 * ends.size)
    assert ends.smallest >= float(spectrum.min()) + 0.25 - 1e-6
    assert products.passes == op.passes <= 40


@pytest.mark.parametrize("D", [torch.full((9,), 0.3), torch.linspace(0.1, 2, 9)], ids=["uniform", "uneven"])
@pytest.mark.parametrize("N", [1, 4, 14])
def test_roots_of_a_diagonal_plus_rows(N, D):
    D, R, eye = D.double(), normal(N, 9), torch.eye(9, dtype=torch.float64)
    A = DiagonalPlusRows(Factor(R), D, Spectral.of((R / D) @ R.mT))
    want = R.mT @ R + D.diag()
    E = A.restore(eye).mT
    near(A.product(eye), want, 1e-13)
    near(E @ E.mT, want, 1e-12)
    near(A.whiten(eye).mT @ E, eye, 1e-12)
    near(A.unwhiten(eye), A.whiten(eye).mT, 1e-12)
    near(A.solve(eye), torch.tensor(np.linalg.inv(want.numpy())), 1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_direction(seed):
    ends = extreme_eigenvalues(spectral([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float32), seed=seed)
    assert (ends.smallest, ends.largest) == pytest.approx((1, 6), rel=1e-5)


def test_rounding_cannot_overfill_the_space():
    op = spectral([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    ritz = block_lanczos(
        op.product,
        6,
        6,
        lambda theta: theta.argsort(),
        tol=torch.zeros_like,
        negligible=0.0,
        block=4,
        largest_basis=6,
        most_passes=9,
        seed=0,
        device=op.device,
    )
    assert ritz.values.tolist() == pytest.approx([1, 2, 3, 4, 5, 6])


def test_rows_without_curvature():
    zero = of_rows(3, 5)
    zero.C *= 0
    assert extreme_eigenvalues(zero).largest == 0
