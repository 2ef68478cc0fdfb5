import json

import pytest
import torch
from scipy.stats import spearmanr

import tlxml_fast as tlx
from tlxml_fast.benchmarks.compression import inner_product_error, spearman
from tlxml_fast.compression import SJLT, SRHT, Compression, Rademacher
from tlxml_fast.errors import TlxError

pytestmark = pytest.mark.usefixtures("one_thread")

EACH = pytest.mark.parametrize("kind", [SJLT, SRHT, Rademacher])
Q, D = 60, 16


def pair(seed: int = 0) -> torch.Tensor:
    """Two correlated rows, some entries much larger than the others."""
    x = torch.randn(2, Q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[:, :5] *= 4
    x[1] += x[0] / 2
    return x


def variance_by_formula(x: torch.Tensor, y: torch.Tensor, kind: type[Compression]) -> torch.Tensor:
    dense = ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x * x) @ (y * y)) / D
    return dense * (64 - D) / 63 if kind is SRHT else dense


@EACH
def test_inner_products_are_unbiased_and_have_the_variance_stated(kind):
    x = pair()
    seeds = 4000
    products = torch.stack([(p := kind(D, seed=s).project(x))[0] @ p[1] for s in range(seeds)])
    want = variance_by_formula(*x, kind)
    assert (products.mean() - x[0] @ x[1]).abs() < 5 * (want / seeds) ** 0.5
    assert (
        abs(products.var() / want - 1) < 0.15
    )  # five standard errors of the variance of a nearly normal sample


@EACH
@pytest.mark.parametrize(("q", "d"), [(1, 1), (1000, 1), (5, 8)])
def test_smallest_sizes(kind, q, d):
    rows = torch.ones(2, q)
    projected = kind(d, seed=1).project(rows)
    assert projected.shape == (2, d)
    if q == 1:
        assert torch.equal(projected.abs(), rows)  # P is 1 or −1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@EACH
def test_projects_in_the_dtype_of_the_rows_and_stores_in_its_own(kind, dtype):
    rows = pair().to(dtype)
    for storage in (torch.float32, torch.bfloat16):
        compression = kind(D, storage=storage)
        projected, stored = compression.project(rows), compression.store(rows)
        assert projected.dtype == dtype
        assert stored.dtype == storage
        assert torch.equal(stored, projected.to(storage))


@EACH
def test_rows_projected_apart_are_those_projected_together(kind):
    rows = torch.randn(40, 300)
    compression = kind(32, seed=3)
    apart = torch.cat([kind(32, seed=3).project(part) for part in rows.split(7)])
    assert torch.equal(compression.project(rows), apart)
    assert not torch.equal(kind(32, seed=4).project(rows), apart)


@EACH
def test_describes_itself(kind):
    compression = kind(D, seed=5, storage=torch.bfloat16)
    described = json.loads(json.dumps(compression.describe()))
    described.pop("nonzeros", None)
    assert described == {"compression": kind.__name__, "dimension": D, "seed": 5, "storage": "bfloat16"}
    again = eval(repr(compression), {kind.__name__: kind, "torch": torch})
    assert again.describe() == compression.describe()


def test_nonzeros():
    assert SJLT(100).nonzeros == 4
    assert SJLT(3).nonzeros == 3
    assert SJLT(100, 7).describe()["nonzeros"] == 7


@EACH
def test_bad_settings(kind):
    with pytest.raises(TlxError, match=f"{kind.__name__}: dimension is 0"):
        kind(0)
    with pytest.raises(TlxError, match=f"{kind.__name__}: seed is -1"):
        kind(D, seed=-1)
    with pytest.raises(TlxError, match=f"{kind.__name__}: storage is torch.float16"):
        kind(D, storage=torch.float16)


def test_what_only_one_refuses():
    with pytest.raises(TlxError, match="SJLT: nonzeros is 17, expected 1 to dimension = 16"):
        SJLT(16, nonzeros=17)
    with pytest.raises(TlxError, match="dimension is 9, but of 5 numbers"):
        SRHT(9).check(5)
    for compression in (SJLT(9), SRHT(8), Rademacher(9)):
        compression.check(5)


def test_public_names():
    assert tlx.SJLT is SJLT
    assert issubclass(tlx.SRHT, tlx.Compression)
    assert issubclass(tlx.Rademacher, tlx.Compression)


def test_what_the_benchmark_measures():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).double()
    assert float(spearman(a, a + b)) == pytest.approx(spearmanr(a, a + b).statistic)
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert inner_product_error(rows, rows) == 0
    assert inner_product_error(rows, torch.tensor([[1.0], [1.0]]), count=2) == pytest.approx(
        0.5
    )  # 1 / (1 · 2)
