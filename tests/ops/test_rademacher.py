import pytest
import torch
from backend import BACKENDS
from cases import projection

from tlxml_fast.ops import rademacher, rademacher_ref
from tlxml_fast.ops.philox import Stream, philox


@pytest.mark.parametrize("backend", BACKENDS)
def test_entries_are_the_bits_of_philox(backend):
    P = rademacher(torch.eye(300, dtype=torch.float64), 40, seed=8, backend=backend).mT
    torch.testing.assert_close(P.abs(), torch.full_like(P, 40**-0.5))
    for r, i in ((0, 0), (39, 31), (17, 128), (5, 299)):
        word = int(philox(8, Stream.rademacher, torch.tensor(i // 128), r)[i % 128 // 32])
        assert (P[r, i] < 0) == bool(word >> i % 32 & 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_rows_of_x_and_of_the_matrix_than_share_a_pass(backend):
    x = projection(70, 150, 1, torch.float64)
    wide = rademacher(x, 1100, seed=1, backend=backend) * 1100**0.5
    narrow = rademacher(x, 30, seed=1, backend=backend) * 30**0.5
    torch.testing.assert_close(wide, rademacher_ref(x, 1100, seed=1) * 1100**0.5)
    torch.testing.assert_close(wide[:, :30], narrow)  # the rows of a smaller matrix come first
    alone = rademacher(x[66:67], 1100, seed=1, backend=backend) * 1100**0.5
    torch.testing.assert_close(wide[66:67], alone)
