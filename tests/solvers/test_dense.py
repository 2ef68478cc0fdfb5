"""The dense inverse: numpy's spectrum, what it reports, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle import invert, near

from tlxml_fast import CurvatureError, Dense, Relative

pytestmark = pytest.mark.usefixtures("one_thread")

SPECTRA = {
    "definite": [0.5, 1.0, 2.0, 4.0, 8.0],
    "indefinite": [-3.0, -0.25, 0.5, 1.0, 8.0],
    "singular": [0.0, 0.0, 1.0, 2.0, 8.0],
    "one": [3.0],
}
NAN = float("nan")


def operator(spectrum: list[float], dtype: torch.dtype = torch.float64) -> SimpleNamespace:
    """A symmetric matrix with that spectrum, in the place of a curvature at tasks."""
    q = len(spectrum)
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(q, q)))
    A = torch.tensor(Q * spectrum @ Q.T)
    return SimpleNamespace(
        q=q, dtype=dtype, device="cpu", dense=lambda: (A + A.T) / 2, factored=lambda _, make: make()
    )


@pytest.mark.parametrize("negative", ["drop", "keep", "abs"])
@pytest.mark.parametrize(
    "options", [{"damping": 0.1}, {"relative": 0.02}, {"rank": 2}, {"rtol": 0.1}], ids=lambda o: next(iter(o))
)
@pytest.mark.parametrize("name", ["definite", "indefinite", "singular"])
def test_inverse_and_report(name, options, negative):
    op, spectrum = operator(SPECTRA[name]), np.sort(SPECTRA[name])
    public = {k: v for k, v in options.items() if k != "relative"}
    if "relative" in options:
        public["damping"] = Relative(options["relative"])
    fitted = Dense(**public, negative=negative).fit(op)
    want, kappa = invert(op.dense(), **options, negative=negative)
    B = torch.eye(op.q, dtype=torch.float64)
    near(fitted.solve(B).X, want, 1e-12)
    near(fitted.solve(B[:1].float()).X, want[:1], 1e-12)

    report = fitted.describe()
    damping = options.get("damping", 8 * options.get("relative", 0))
    used = np.abs(spectrum) if negative == "abs" else spectrum
    cut = np.sort(np.abs(spectrum))[-2] if "rank" in options else 8 * options.get("rtol", -1)
    kept = (np.abs(spectrum) >= cut) & ((spectrum >= 0) | (negative != "drop"))
    assert report["eigenvalues"] == pytest.approx(spectrum, abs=1e-13)
    assert report["n_negative"] == (spectrum < 0).sum()
    assert report["n_kept"] == kept.sum()
    assert report["damping"] == pytest.approx(damping)
    assert report["condition_number"] == pytest.approx(kappa)
    assert report["effective_rank"] == pytest.approx((used / np.where(kept, used + damping, np.inf)).sum())


REFUSED = {
    "negative damping": ({"damping": -1.0}, "damping is a finite number"),
    "NaN damping": ({"damping": NAN}, "damping is a finite number"),
    "infinite damping": ({"damping": float("inf")}, "damping is a finite number"),
    "damping and rank": ({"damping": 0.1, "rank": 2}, "give one"),
    "relative and rank": ({"damping": Relative(0.1), "rank": 2}, "give one"),
    "damping and rtol": ({"damping": 0.1, "rtol": 0.1}, "give one"),
    "rank and rtol": ({"rank": 2, "rtol": 0.1}, "give rank or rtol"),
    "no rank": ({"rank": 0}, "rank is at least 1"),
    "rtol of 1": ({"rtol": 1.0}, "rtol lies between"),
    "NaN rtol": ({"rtol": NAN}, "rtol lies between"),
    "unknown negative": ({"negative": "flip"}, "negative is one of drop, keep, abs, error"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(CurvatureError, match=message):
        Dense(**options)


@pytest.mark.parametrize("fraction", [-0.1, NAN])
def test_relative_refused(fraction):
    with pytest.raises(CurvatureError, match="damping is a finite number"):
        Relative(fraction)


UNFIT = {
    "singular": ("singular", {}, "singular to rounding after damping"),
    "singular to rounding": ("singular", {"damping": 1e-16}, "singular to rounding"),
    "damped into singularity": ("indefinite", {"damping": 0.25, "negative": "keep"}, "singular to rounding"),
    "rank": ("singular", {"rank": 4}, "rank is 4, and only 3 eigenvalues are not zero"),
    "negative": (
        "indefinite",
        {"damping": 9.0, "negative": "error"},
        "2 of 5 eigenvalues are negative, the lowest -3",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_matrices_refused(case):
    name, options, message = UNFIT[case]
    with pytest.raises(CurvatureError, match=message):
        Dense(**options).fit(operator(SPECTRA[name]))


def test_nothing_left():
    with pytest.raises(CurvatureError, match="no eigenvalue is left"):
        Dense(damping=0.1).fit(operator([-1.0, -2.0]))


def test_rounding_is_that_of_the_precision_computed_in():
    spectrum = [1e-8, 1.0]
    Dense().fit(operator(spectrum))
    with pytest.raises(CurvatureError, match="singular to rounding"):
        Dense().fit(operator(spectrum, torch.float32))
    with pytest.raises(CurvatureError, match="only 1 eigenvalues"):
        Dense(rank=2).fit(operator(spectrum, torch.float32))
    assert Dense(rtol=0).fit(operator(spectrum, torch.float32)).describe()["n_kept"] == 1


def test_negative_to_rounding_is_not_negative():
    fitted = Dense(damping=0.1, negative="error").fit(operator([-1e-17, 1.0, 2.0]))
    assert fitted.describe()["n_negative"] == 0
    assert fitted.describe()["n_kept"] == 3


def test_one_parameter():
    near(
        Dense().fit(operator(SPECTRA["one"])).solve(torch.ones(2, 1)).X,
        torch.full((2, 1), 1 / 3, dtype=torch.float64),
        1e-15,
    )


@pytest.mark.parametrize("negative", ["drop", "keep", "abs"])
def test_certificate_is_of_the_matrix(negative):
    op = operator(SPECTRA["indefinite"])
    fitted = Dense(damping=0.1, negative=negative).fit(op)
    B = torch.tensor(np.random.default_rng(1).normal(size=(3, op.q)))
    B[1] = 0
    X, certificate = fitted.solve(B)
    A, P = op.dense(), torch.eye(op.q, dtype=torch.float64)
    if negative == "abs":
        values, Q = np.linalg.eigh(A.numpy())
        A = torch.tensor(Q * np.abs(values) @ Q.T)
    want = (X @ (A + 0.1 * P) - B).norm(dim=1) / B.norm(dim=1)
    want[1] = 0
    assert certificate.residuals == pytest.approx(want.tolist(), abs=1e-14)
    assert certificate.exact == (negative != "drop")
    assert (certificate.worst < 1e-13) == certificate.exact
    assert (certificate.largest, certificate.smallest) == pytest.approx((8, -3))


def test_another_damping_from_the_same_decomposition():
    fitted = Dense(damping=0.1, negative="abs").fit(operator(SPECTRA["indefinite"]))
    again = fitted.at(Relative(0.5))
    B = torch.eye(5, dtype=torch.float64)
    near(again.solve(B).X, Dense(4.0, negative="abs").fit(operator(SPECTRA["indefinite"])).solve(B).X, 1e-13)
    assert again.eigenvectors is fitted.eigenvectors
    with pytest.raises(CurvatureError, match="has no damping"):
        Dense(rank=2).fit(operator(SPECTRA["definite"])).at(0.1)
