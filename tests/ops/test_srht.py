import pytest
import torch
from backend import BACKENDS
from cases import projection
from scipy.linalg import hadamard as scipy_hadamard

from tlxml_fast.errors import TlxError
from tlxml_fast.ops import srht
from tlxml_fast.ops._triton import INTERPRETED
from tlxml_fast.ops.srht import BLOCK, hadamard, padded, srht_rows


@pytest.mark.parametrize("N", [1, 2, 8, 64])
def test_hadamard_is_scipys(N):
    want = torch.from_numpy(scipy_hadamard(N)).double()
    assert torch.equal(hadamard(torch.eye(N, dtype=torch.float64)), want)


@pytest.mark.parametrize(("q", "d"), [(1, 1), (2, 2), (5, 7), (100, 20)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_sampled_rows_of_hadamard_with_signs(backend, q, d):
    P = srht(torch.eye(q, dtype=torch.float64), d, seed=4, backend=backend).mT * d**0.5
    H = torch.from_numpy(scipy_hadamard(padded(q))).double()[srht_rows(q, d, 4)][:, :q]
    flips = P[0] / H[0]
    torch.testing.assert_close(flips.abs(), torch.ones(q, dtype=torch.float64))
    torch.testing.assert_close(P, H * flips)


@pytest.mark.parametrize("q", [1, 6, 64, 300])
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_rows_are_an_isometry(backend, q):
    x = projection(4, q, 1, torch.float64)
    y = srht(x, padded(q), seed=2, backend=backend)
    torch.testing.assert_close(y @ y.mT, x @ x.mT)


@pytest.mark.parametrize(("q", "d"), [(1, 1), (3, 4), (3, 3), (1000, 700), (9000, 40), (2**20, 1000)])
def test_rows_are_different_and_in_the_order_of_their_places(q, d):
    rows = srht_rows(q, d, 1)
    assert len(rows.unique()) == d
    assert rows.min() >= 0
    assert rows.max() < padded(q)
    key = rows % BLOCK * padded(q) + rows
    assert torch.equal(key, key.sort().values)


def test_rows_are_sampled_uniformly():
    counts = torch.zeros(16)
    for seed in range(400):
        counts[srht_rows(16, 4, seed)] += 1
    assert (counts - 100).abs().max() < 5 * 75**0.5


def test_no_more_rows_than_there_are():
    with pytest.raises(TlxError, match="dimension is 9, but of 5 numbers, padded to 8"):
        srht(torch.ones(1, 5), 9)


@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
def test_a_block_as_a_square_is_that_of_a_cube(monkeypatch):
    from tlxml_fast.kernels import srht as kernels

    x, found = projection(3, 5000, 1, torch.float32), []
    for shape in (kernels.CUBE, kernels.SQUARE):
        monkeypatch.setattr(kernels, "shape_of", lambda x, shape=shape: shape)
        found.append(srht(x, 70, seed=1, backend="triton"))
    torch.testing.assert_close(*found)
