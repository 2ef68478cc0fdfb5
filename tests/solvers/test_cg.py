"""CG: exact with any preconditioner, whatever right-hand sides come together, and honest about what it cannot solve."""

from __future__ import annotations

import pytest
import torch
from oracle import near
from problems import Named, Operator, exact, normal, of_rows, rotation, spectral

from tlxml_fast import CG, CurvatureError, InfluenceWarning, Relative
from tlxml_fast.solvers import Diagonal, NystromPreconditioner, Sketch
from tlxml_fast.solvers.certificate import Certificate

pytestmark = pytest.mark.usefixtures("one_thread")

Q = 37
SPECTRUM = torch.logspace(0, -4, Q, dtype=torch.float64)
UNEVEN = torch.linspace(0.001, 0.3, Q, dtype=torch.float64)
PRECONDITIONERS = {
    "none": None,
    "diagonal": "diagonal",
    "nystrom": NystromPreconditioner(8),
    "full rank": "nystrom",
    "sketch": Sketch(Named("near")),
}


def problem(decay=0.0) -> Operator:
    """C = RᵀR of 50 rows, and a curvature of rows like them."""
    op = of_rows(50, Q, decay, condition=1e4)
    op.others["near"] = of_rows(50, Q, decay, condition=1e4)
    op.others["near"]._rows.R[:10] *= 1.1
    return op


def residual(op: Operator, damping: float, X: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return (X @ op.dense() + damping * X - B).norm(dim=1) / B.norm(dim=1)


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("decay", [0.0, 0.01, UNEVEN], ids=["none", "some", "uneven"])
@pytest.mark.parametrize("K", [1, 6, 50])
def test_exact(K, decay, name):
    op, B = problem(decay), normal(K, Q)
    fitted = CG(1e-3, tol=1e-10, preconditioner=PRECONDITIONERS[name]).fit(op)
    assert 0 < fitted.effective_rank.rank <= Q  # its passes are not the solve's
    before = op.passes
    X, certificate = fitted.solve(B)
    near(X, exact(op, 1e-3, B), 1e-7)
    assert certificate.passes == op.passes - before
    assert certificate.residuals == pytest.approx(residual(op, 1e-3, X, B).tolist(), rel=1e-2, abs=1e-14)
    assert certificate.worst <= 1e-10


@pytest.mark.parametrize("decay", [0.01, UNEVEN], ids=["even", "uneven"])
def test_factors_of_a_sketch(decay):
    op, eye = problem(decay), torch.eye(Q, dtype=torch.float64)
    fitted = CG(0.02, preconditioner=Sketch(Named("near"))).fit(op)
    for each in (fitted, fitted.at(0.3)):
        E = each.split.restore(eye).mT
        near(
            E @ E.mT,
            op.others["near"].rows().R.mT @ op.others["near"].rows().R + (op.decay + each.damping).diag(),
            1e-11,
        )
        near(each.split.unwhiten(eye) @ E, eye, 1e-11)


def test_a_good_preconditioner_saves_iterations():
    B = normal(2, Q)
    counts = {
        name: CG(1e-3, preconditioner=given).fit(problem()).solve(B).certificate.iterations
        for name, given in PRECONDITIONERS.items()
    }
    assert counts["sketch"] <= counts["none"] / 2
    assert counts["full rank"] <= 3
    assert counts["nystrom"] < counts["none"]


def test_diagonal_pays_where_scales_differ():
    scale = torch.logspace(0, 3, Q, dtype=torch.float64)
    A = rotation(Q) * torch.linspace(1, 2, Q, dtype=torch.float64) @ rotation(Q).mT
    op = Operator(scale[:, None] * A * scale)
    counts = [
        CG(1e-3, preconditioner=p).fit(op).solve(normal(1, Q)).certificate.iterations
        for p in (None, "diagonal")
    ]
    assert counts[1] < counts[0] / 2


def test_probes_estimate_the_diagonal_that_rows_give():
    op = problem()
    by_rows = Diagonal().fit(CG(1.0).fit(op).products).diagonal
    near(by_rows, op.C.diagonal(), 1e-12)
    op.by_rows = False
    near(Diagonal(probes=4000).fit(CG(1.0).fit(op).products).diagonal, op.C.diagonal(), 0.1)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_vectors_together_or_alone(name):
    op, B, tol = problem(), normal(9, Q), 1e-6
    fitted = CG(1e-3, tol=tol, preconditioner=PRECONDITIONERS[name]).fit(op)
    together = fitted.solve(B).X
    alone = torch.cat([fitted.solve(b[None]).X for b in B])
    parts = torch.cat([fitted.solve(part).X for part in B.split(4)])
    for other in (alone, parts):
        difference = together - other
        assert ((difference @ op.dense() + 1e-3 * difference).norm(dim=1) <= 2 * tol * B.norm(dim=1)).all()


def test_the_same_twice():
    one, two = (CG(1e-3, preconditioner="nystrom").fit(problem()).solve(normal(5, Q)).X for _ in range(2))
    assert torch.equal(one, two)


DEPENDENT = {
    "equal": lambda B: torch.cat([B, B]),
    "zero": lambda B: torch.cat([B, torch.zeros_like(B)]),
    "nearly equal": lambda B: torch.cat([B, B + 1e-9 * normal(*B.shape, seed=5)]),
    "of all sizes": lambda B: B * torch.logspace(0, -200, len(B), dtype=torch.float64)[:, None],
    "combinations": lambda B: normal(12, len(B), seed=4) @ B,
    "more than parameters": lambda B: normal(3 * Q, Q, seed=4),
    "an eigenvector": lambda B: torch.cat([B, rotation(Q).mT[:2]]),
    "none": lambda B: B[:0],
    "all zero": lambda B: 0 * B,
    "float32, strided": lambda B: B.float().mT.contiguous().mT,
}


@pytest.mark.parametrize("preconditioner", [None, NystromPreconditioner(5)], ids=["plain", "nystrom"])
@pytest.mark.parametrize("case", DEPENDENT)
def test_right_hand_sides_that_depend_on_each_other(case, preconditioner):
    op, B = spectral(SPECTRUM), DEPENDENT[case](normal(4, Q))
    X, certificate = CG(1e-3, tol=1e-9, preconditioner=preconditioner).fit(op).solve(B)
    assert certificate.worst <= 1e-9
    assert len(certificate.residuals) == len(B)
    if len(B):
        assert float(residual(op, 1e-3, X, B.double()).nan_to_num().max()) <= 1.1e-9


def test_directions_that_have_converged_take_no_products():
    op = spectral(SPECTRUM)
    fitted = CG(1e-3, tol=1e-6).fit(op)
    easy = rotation(Q).mT[:8]
    before = op.vectors
    iterations = fitted.solve(torch.cat([easy, normal(1, Q)])).certificate.iterations
    assert op.vectors - before < 9 * (iterations + 1) / 2 + 9


def test_one_parameter():
    op = spectral([3.0])
    near(CG(1.0).fit(op).solve(torch.ones(2, 1)).X, torch.full((2, 1), 0.25, dtype=torch.float64), 1e-12)


def test_another_damping_with_the_same_sketch():
    op, B = problem(), normal(3, Q)
    fitted = CG(1e-2, tol=1e-10, preconditioner="nystrom").fit(op)
    before = op.passes
    other = fitted.at(Relative(1e-3))
    assert op.passes == before
    near(other.solve(B).X, exact(op, other.damping, B), 1e-6)
    near(fitted.solve(B).X, exact(op, 1e-2, B), 1e-6)


INDEFINITE = [*torch.linspace(0.1, 5, 30).tolist(), -0.7]


@pytest.mark.parametrize("preconditioner", [None, "diagonal"])
def test_indefinite_is_refused_and_the_damping_named_will_do(preconditioner):
    op = spectral(INDEFINITE)
    with pytest.raises(CurvatureError, match=r"the most negative Ritz value is -0\.7;") as refusal:
        CG(0.5, preconditioner=preconditioner).fit(op)
    damping = float(str(refusal.value).split("a damping of ")[1].split()[0])
    assert damping < 0.8
    B = normal(3, op.q)
    near(
        CG(damping, tol=1e-10, preconditioner=preconditioner).fit(op).solve(B).X, exact(op, damping, B), 1e-6
    )


@pytest.mark.parametrize("preconditioner", [None, "diagonal"])
@pytest.mark.parametrize("K", [1, 5])
def test_negative_curvature_met_on_the_way_is_refused(K, preconditioner, monkeypatch):
    monkeypatch.setattr("tlxml_fast.solvers.cg.refuse_indefinite", lambda *_: None)
    with pytest.raises(CurvatureError, match=r"conjugate gradients met the Ritz value -0\.[1-7]"):
        CG(0.05, preconditioner=preconditioner).fit(spectral(INDEFINITE)).solve(normal(K, len(INDEFINITE)))


def test_singular_is_refused():
    with pytest.raises(CurvatureError, match="singular to rounding after damping"):
        CG(0.0).fit(spectral([0.0, 0.0, 1.0, 2.0, 8.0]))
    with pytest.raises(CurvatureError, match="positive semi-definite"):
        CG(3.0, preconditioner="nystrom").fit(spectral([-2.0, 1.0, 4.0]))


def test_too_few_iterations_are_an_error():
    fitted = CG(1e-3, max_iter=3).fit(spectral(SPECTRUM))
    with pytest.raises(
        CurvatureError,
        match=r"2 of 2 right-hand sides did not converge: .*after 3 iterations; raise max_iter",
    ):
        fitted.solve(normal(2, Q))


def test_or_a_warning():
    fitted = CG(1e-3, max_iter=3, allow_unconverged=True).fit(spectral(SPECTRUM))
    with pytest.warns(InfluenceWarning, match="did not converge"):
        X, certificate = fitted.solve(normal(2, Q))
    assert not certificate.converged
    energy = (X @ spectral(SPECTRUM).dense() + 1e-3 * X) * X / 2 - X * normal(2, Q)
    assert (energy.sum(1) < 0).all()  # nearer than 0
    near(
        torch.tensor(certificate.residuals), residual(spectral(SPECTRUM), 1e-3, X, normal(2, Q)).float(), 1e-5
    )


def test_products_in_float32_are_solved_as_far_as_they_go():
    op = spectral(SPECTRUM, dtype=torch.float32)
    certificate = CG(1e-2, tol=1e-5).fit(op).solve(normal(6, Q)).certificate
    assert certificate.worst <= 1e-5
    with pytest.raises(CurvatureError, match="no more is to be had from products in float32"):
        CG(1e-2, tol=1e-13).fit(op).solve(normal(6, Q))


def test_relative_damping():
    certificate = CG(Relative(1e-2)).fit(spectral(SPECTRUM, 0.5)).solve(normal(1, Q)).certificate
    assert certificate.damping == pytest.approx(1.5e-2, rel=1e-5)
    assert certificate.largest == pytest.approx(1.5, rel=1e-5)


REFUSED = {
    "preconditioner": (
        {"preconditioner": "ilu"},
        "preconditioner is None, 'diagonal', 'nystrom' or an object",
    ),
    "class": ({"preconditioner": [1]}, "preconditioner is None"),
    "tol": ({"tol": 1.0}, "tol lies between"),
    "max_iter": ({"max_iter": 0}, "max_iter is a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(CurvatureError, match=message):
        CG(1.0, **options)


def test_certificates_join():
    parts = [
        Certificate((0.1, 0.2), 1.0, 5.0, tol=0.3, iterations=4, passes=5),
        Certificate((0.4,), 1.0, 5.0, tol=0.3, iterations=2, passes=3, converged=False),
    ]
    joined = Certificate.join(parts)
    assert (joined.residuals, joined.iterations, joined.passes, joined.converged) == (
        (0.1, 0.2, 0.4),
        4,
        8,
        False,
    )
