import pytest
import torch
from backend import BACKENDS, COMPILED, needs_compiled, needs_native
from cases import projection

from tlxml_fast.errors import TlxError
from tlxml_fast.ops import sjlt, sjlt_ref


@pytest.mark.parametrize(("d", "s"), [(1, 1), (7, 2), (33, 5), (12, 12)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_column_has_one_entry_in_each_block(backend, d, s):
    P = sjlt(torch.eye(150, dtype=torch.float64), d, s, seed=3, backend=backend).mT
    for b in range(s):
        block = P[b * d // s : (b + 1) * d // s]
        assert (block != 0).sum(0).tolist() == [1] * 150
        torch.testing.assert_close(block.abs().sum(0), torch.full((150,), s**-0.5, dtype=torch.float64))


def test_places_are_uniform_and_signs_fair():
    """The reference's, which every backend draws."""
    P = sjlt_ref(torch.eye(3000, dtype=torch.float64), 30, 2, seed=1).mT * 2**0.5
    counts = (P != 0).sum(1)  # 3000 columns over the 15 rows of each block
    assert (counts - 200).abs().max() < 5 * 200**0.5
    assert P.sum().abs() < 5 * 6000**0.5


@needs_compiled
def test_sums_run_in_order():
    x = projection(5, 300, 12, torch.float32)
    assert torch.equal(sjlt(x, 12, 4, backend=COMPILED), sjlt_ref(x, 12, 4))  # 1/√4 is exact


@needs_native
def test_more_columns_than_a_run():
    x = projection(2, 2**18 + 37, 9, torch.float64)
    torch.testing.assert_close(sjlt(x, 9, 3, backend="native"), sjlt_ref(x, 9, 3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("s", [0, 9])
def test_as_many_nonzeros_as_rows(s):
    with pytest.raises(TlxError, match=f"nonzeros is {s}, expected 1 to dimension = 8"):
        sjlt(torch.ones(1, 5), 8, s)
