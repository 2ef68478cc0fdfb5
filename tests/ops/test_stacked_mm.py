import pytest
import torch
from cases import DTYPES, STACKED_MM, assert_near, generator

from tlxml_fast.ops import _native, native_available
from tlxml_fast.ops.stacked_mm import stacked_mm

pytestmark = pytest.mark.skipif(not native_available(), reason="no core")


@pytest.fixture(autouse=True)
def at_any_level(monkeypatch):
    """The kernel, at levels too where torch multiplies."""
    monkeypatch.setattr("tlxml_fast.ops.stacked_mm._here", lambda *_: True)


def pair(B, m, k, n, dtype):
    g = generator()
    return tuple(
        torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype) for shape in ((B, m, k), (B, k, n))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", STACKED_MM, ids=str)
def test_against_truth(shape, dtype):
    a, b = pair(*shape, dtype)
    want = a.double() @ b.double()
    out = torch.full(want.shape, torch.nan, dtype=dtype)
    assert stacked_mm(a, b, out=out) is out
    assert_near(out, want, dtype)
    assert_near(stacked_mm(a, b, add_to=out.clone()), out.double() + want, dtype)
    assert_near(stacked_mm(b.mT, a.mT), want.mT, dtype)


def test_strides_and_shared_matrices():
    a, b = pair(4, 6, 7, 18, torch.float64)
    wide = torch.full((4, 6, 40), torch.nan, dtype=torch.float64)
    stacked_mm(a, b[:1].expand(4, 7, 18), out=wide[:, :, 3:21])
    torch.testing.assert_close(wide[:, :, 3:21], a @ b[0])
    assert wide[:, :, :3].isnan().all()
    assert wide[:, :, 21:].isnan().all()
    strided = torch.empty(4, 7, 12, dtype=torch.float64)[:, :, ::2].copy_(a.mT).mT
    assert torch.equal(stacked_mm(strided, b), stacked_mm(a, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_batching(dtype, threads):
    a, b = pair(3, 40, 300, 200, dtype)
    want = stacked_mm(a, b)
    for count in (1, 2):
        threads(count)
        assert torch.equal(stacked_mm(a, b), want)
    assert torch.equal(torch.cat([stacked_mm(x[None], y[None]) for x, y in zip(a, b, strict=True)]), want)


def test_torch_multiplies_below_the_level(monkeypatch):
    a, b = pair(2, 3, 4, 5, torch.float64)
    monkeypatch.setattr("tlxml_fast.ops.stacked_mm._here", lambda *_: False)
    monkeypatch.setattr(_native, "kernel", None)
    assert torch.equal(stacked_mm(a, b), torch.bmm(a, b))
