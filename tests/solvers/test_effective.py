"""The effective rank by random vectors: near the spectrum's, whatever solves for it."""

from __future__ import annotations

import pytest
import torch
from problems import Operator, normal, of_rows, spectral

from tlxml_fast import CG, InfluenceWarning, Nystrom, Woodbury
from tlxml_fast.solvers.effective import effective_rank

Q = 200
EIGENVALUES = torch.logspace(0, -4, Q, dtype=torch.float64)


def of_spectrum(values: torch.Tensor, damping: float) -> float:
    return float((values / (values + damping)).sum())


@pytest.mark.parametrize("damping", [1e-3, 1e-1, 10.0])
def test_a_diagonal_is_exact(damping):
    """z·(Λ + λ)⁻¹z is the trace for signs z."""
    found = effective_rank(lambda z: z / (EIGENVALUES + damping), damping, Q, torch.device("cpu"))
    assert found.rank == pytest.approx(of_spectrum(EIGENVALUES, damping))
    assert found.error == found.rank**0.5


@pytest.mark.parametrize("damping", [1e-3, 1e-1])
@pytest.mark.parametrize("preconditioner", [None, "nystrom"])
def test_of_conjugate_gradients(damping, preconditioner):
    fitted = CG(damping, preconditioner=preconditioner).fit(spectral(EIGENVALUES))
    want = of_spectrum(EIGENVALUES, damping)
    certificate = fitted.solve(normal(3, Q)).certificate
    assert certificate.effective_rank == pytest.approx(want, abs=2 * want**0.5)
    assert certificate.effective_rank_error == certificate.effective_rank**0.5
    assert fitted.at(1.0).effective_rank < fitted.effective_rank


def test_it_is_left_out_where_it_is_not_known():
    op = spectral(EIGENVALUES)
    assert CG(1e-2, effective_rank=False).fit(op).solve(normal(2, Q)).certificate.effective_rank is None
    stopped = CG(1e-4, max_iter=3, allow_unconverged=True).fit(op)
    with pytest.warns(InfluenceWarning, match="did not converge"):
        certificate = stopped.solve(normal(2, Q)).certificate
    assert (certificate.effective_rank, certificate.effective_rank_error) == (None, None)


def test_a_solve_does_not_count_its_passes_and_the_next_takes_none():
    op: Operator = spectral(EIGENVALUES)
    fitted = CG(1e-2).fit(op)
    first = fitted.solve(normal(3, Q)).certificate
    before = op.passes
    second = fitted.solve(normal(3, Q)).certificate
    assert op.passes - before == second.passes == first.passes
    assert second == first


def test_without_damping_it_is_the_dimension():
    assert effective_rank(lambda z: z / EIGENVALUES, 0.0, Q, torch.device("cpu")).rank == Q


@pytest.mark.parametrize("inverse", [Nystrom(40, 1e-2), Woodbury(1e-2)])
def test_of_uneven_decay(inverse):
    op = of_rows(40, Q, torch.linspace(0.0, 0.1, Q, dtype=torch.float64))
    want = of_spectrum(torch.linalg.eigvalsh(op.dense()), 1e-2)
    found = inverse.fit(op).solve(normal(2, Q)).certificate.effective_rank
    assert found == pytest.approx(want, abs=2 * want**0.5)
