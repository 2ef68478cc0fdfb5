"""Woodbury: exact for any number of rows, any damping, uneven weight decay and rows of little precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import near
from problems import exact, normal, of_rows, spectral

from tlxml_fast import CurvatureError, InfluenceWarning, Relative, TlxError, Woodbury
from tlxml_fast.memory import limited
from tlxml_fast.solvers import woodbury

pytestmark = pytest.mark.usefixtures("one_thread")

UNEVEN = torch.linspace(0.01, 0.3, 23, dtype=torch.float64)
SHAPES = {
    "few rows": (7, 23),
    "one row": (1, 23),
    "as many": (23, 23),
    "many rows": (60, 23),
    "one parameter": (4, 1),
}


@pytest.mark.parametrize("factor", ["eigh", "cholesky"])
@pytest.mark.parametrize("shape", SHAPES)
def test_exact(shape, factor):
    N, q = SHAPES[shape]
    op, B = of_rows(N, q, 0.01), normal(5, q)
    X, certificate = Woodbury(0.02, factor=factor).fit(op).solve(B)
    near(X, exact(op, 0.02, B), 1e-11)
    assert certificate.converged
    assert certificate.exact
    assert certificate.worst < 1e-12


@pytest.mark.parametrize("factor", ["auto", "cholesky"])
def test_exact_where_the_weight_decay_differs(factor):
    op, B = of_rows(7, 23, UNEVEN), normal(5, 23)
    fitted = Woodbury(0.0, factor=factor).fit(op)
    near(fitted.solve(B).X, exact(op, 0.0, B), 1e-11)
    near(fitted.at(0.5).solve(B).X, exact(op, 0.5, B), 1e-11)
    assert fitted.describe()["serves"] == "one damping"


@pytest.mark.parametrize("decay", [0.0, 0.05, UNEVEN], ids=["none", "some", "uneven"])
@pytest.mark.parametrize("N", [7, 60])
def test_what_it_says_of_the_spectrum(N, decay):
    op = of_rows(N, 23, decay)
    values = np.linalg.eigvalsh(op.dense().numpy())
    certificate = Woodbury(Relative(1e-2)).fit(op).solve(normal(2, 23)).certificate
    assert certificate.largest == pytest.approx(values[-1])
    assert certificate.damping == pytest.approx(1e-2 * values[-1])
    assert certificate.smallest == pytest.approx(max(values[0], 0), abs=1e-10)
    effective = (values / (values + certificate.damping)).sum()
    estimated = decay is UNEVEN
    assert certificate.effective_rank == pytest.approx(
        effective, abs=2 * effective**0.5 if estimated else None
    )


def test_one_decomposition_serves_every_damping():
    op, B = of_rows(7, 23, 0.01), normal(3, 23)
    grams = []
    op._rows.gram = lambda gram=op._rows.gram: grams.append(1) or gram()
    fitted = Woodbury(1.0).fit(op)
    for damping in (1e-3, 1e-1, 10.0):
        near(fitted.at(damping).solve(B).X, exact(op, damping, B), 1e-10)
    assert len(grams) == 1
    assert op.passes == 0


def test_the_ends_of_the_spectrum_are_found_once(monkeypatch):
    found = []
    ends = woodbury.extreme_eigenvalues
    monkeypatch.setattr(woodbury, "extreme_eigenvalues", lambda *given: found.append(1) or ends(*given))
    fitted = Woodbury(Relative(1e-1), factor="cholesky").fit(of_rows(7, 23))
    assert fitted.at(Relative(1e-2)).largest == fitted.largest
    assert len(found) == 1


def test_auto_goes_by_the_number_of_rows(monkeypatch):
    assert Woodbury(1.0).fit(of_rows(7, 23)).describe()["factor"] == "eigh"
    monkeypatch.setattr(woodbury, "MOST_EIGH", 6)
    assert Woodbury(1.0).fit(of_rows(7, 23)).describe()["factor"] == "cholesky"


@pytest.mark.parametrize("factor", ["eigh", "cholesky"])
def test_a_gram_of_little_precision_is_refined(factor):
    op, B = of_rows(20, 40, condition=1e2), normal(4, 40)
    gram = op.rows().gram
    op._rows.gram = lambda: gram().float().double()
    X, certificate = Woodbury(1e-4, tol=1e-11, factor=factor).fit(op).solve(B)
    near(X, exact(op, 1e-4, B), 1e-8)
    assert certificate.iterations > 0
    assert certificate.worst <= 1e-11


def test_rows_in_float32_are_solved_as_exactly_as_they_are_given():
    op, B = of_rows(20, 40, dtype=torch.float32), normal(4, 40)
    X, certificate = Woodbury(1e-3).fit(op).solve(B.float())
    near(X, exact(op, 1e-3, B.float().double()), 1e-6)
    assert certificate.tol == 1e-6


def test_no_more_is_asked_than_float64_can_give():
    certificate = Woodbury(1e-11).fit(of_rows(7, 23)).solve(normal(4, 23)).certificate
    assert 1e-10 < certificate.worst <= certificate.tol < 1e-2


@pytest.mark.parametrize("factor", ["eigh", "cholesky"])
def test_right_hand_sides_do_not_depend_on_each_other(factor):
    op, B = of_rows(7, 23), normal(5, 23)
    fitted = Woodbury(0.1, factor=factor).fit(op)
    B[3] = 0
    X, certificate = fitted.solve(B)
    near(torch.cat([fitted.solve(b[None]).X for b in B]), X, 1e-13)
    near(
        fitted.solve(B.repeat(1, 2)[:, ::2].contiguous()[:, :23]).X,
        fitted.solve(B.repeat(1, 2)[:, ::2][:, :23]).X,
        0,
    )
    assert certificate.residuals[3] == 0
    assert fitted.solve(B[:0]).X.shape == (0, 23)


def broken(monkeypatch):
    """A fitted inverse whose dual solve is wrong by half."""
    fitted = Woodbury(0.1, tol=1e-9).fit(of_rows(7, 23))
    monkeypatch.setattr(fitted.solver.dual, "solve", lambda Y: -3 * Y)
    return fitted


def test_what_does_not_converge_is_an_error(monkeypatch):
    with pytest.raises(
        CurvatureError, match=r"4 of 5 right-hand sides did not converge: the worst relative residual"
    ):
        broken(monkeypatch).solve(torch.cat([normal(4, 23), torch.zeros(1, 23)]))


def test_or_a_warning(monkeypatch):
    fitted = broken(monkeypatch)
    fitted.system.inverse.allow_unconverged = True
    with pytest.warns(InfluenceWarning, match="did not converge"):
        certificate = fitted.solve(normal(4, 23)).certificate
    assert not certificate.converged
    assert certificate.describe()["converged"] is False


REFUSED = {
    "no damping": (lambda: Woodbury(0.0).fit(of_rows(7, 23)), "matrix is singular"),
    "none at one parameter": (lambda: Woodbury(0.0).fit(of_rows(7, 23, UNEVEN - 0.01)), "matrix is singular"),
    "no damping later": (lambda: Woodbury(1.0).fit(of_rows(7, 23)).at(0.0), "matrix is singular"),
    "no rows": (lambda: Woodbury(1.0).fit(spectral([1.0, 2.0])), "has no rows"),
    "eigh, uneven": (lambda: Woodbury(1.0, factor="eigh").fit(of_rows(7, 23, UNEVEN)), "use 'cholesky'"),
    "factor": (lambda: Woodbury(1.0, factor="lu"), "factor is one of auto, eigh, cholesky"),
    "tol": (lambda: Woodbury(1.0, tol=0), "tol lies between"),
    "damping": (lambda: Woodbury(-1.0), "damping is a finite number"),
    "length": (
        lambda: Woodbury(1.0).fit(of_rows(7, 23)).solve(normal(2, 22)),
        r"rows of 23 entries, not \[2, 22\]",
    ),
    "NaN": (lambda: Woodbury(1.0).fit(of_rows(7, 3)).solve(torch.full((1, 3), np.nan)), "is not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    attempt, message = REFUSED[case]
    with pytest.raises(CurvatureError, match=message):
        attempt()


@pytest.mark.parametrize("factor", ["eigh", "cholesky"])
def test_rows_that_are_not_finite_are_refused(factor):
    op = of_rows(7, 23)
    op._rows.R[2, 3] = np.inf
    with pytest.raises(CurvatureError, match="is not finite"):
        Woodbury(1.0, factor=factor).fit(op)


def test_what_does_not_fit_is_refused_before_any_work():
    op = of_rows(600, 23)
    op._rows.gram = None
    with limited(1), pytest.raises(TlxError, match="Woodbury for 600 rows needs 8 MiB"):
        Woodbury(1.0).fit(op)
