"""The compiled core itself: its exp and tanh, its threads, what happens without it, and what the doctor says."""

import pytest
import torch
from backend import COMPILED, WHY_NOT, needs_native

from tlxml_fast import doctor
from tlxml_fast.errors import BackendError, FallbackWarning
from tlxml_fast.ops import OPS, _native, choose, native_available, softmax_gn, softmax_gn_ref, why_not_native


def core_exp(x, op="exp"):
    out = torch.full_like(x, torch.nan)
    _native.kernel(op, x.dtype)(x.data_ptr(), out.data_ptr(), x.numel())
    return out


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_at_the_ends_and_near_zero(dtype):
    inf, nan = torch.inf, torch.nan
    special = torch.tensor([0.0, -inf, inf, nan, 1e30, -1e30, 30.0], dtype=dtype)
    torch.testing.assert_close(core_exp(special, "tanh"), special.tanh(), rtol=0, atol=0, equal_nan=True)
    small = torch.logspace(-30, 0, 400, dtype=dtype)
    for x in (small, -small):
        error = (core_exp(x, "tanh").double() / x.double().tanh() - 1).abs().max()
        assert error <= 4 * torch.finfo(dtype).eps


@needs_native
@pytest.mark.parametrize(("dtype", "lowest"), [(torch.float32, -104.0), (torch.float64, -745.5)])
def test_exp_at_the_ends(dtype, lowest):
    inf, nan = torch.inf, torch.nan
    special = torch.tensor([0.0, -0.0, -inf, inf, nan, 1e30, -1e30, lowest], dtype=dtype)
    torch.testing.assert_close(core_exp(special), special.exp(), rtol=0, atol=0, equal_nan=True)
    subnormal = torch.linspace(lowest, lowest + 16, 99, dtype=dtype)
    spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert (core_exp(subnormal).double() - subnormal.double().exp()).abs().max() <= 2 * spacing


@needs_native
def test_exp_and_tanh_within_a_few_ulp():
    passed, figures = _native.self_test()
    assert passed, figures


@needs_native
@pytest.mark.skipif("sanitizer" in _native.threading, reason="a sanitizer build has threads of its own")
def test_serial_without_a_hook():
    x = torch.linspace(-1, 1, 100_000)
    with_hook = core_exp(x)
    try:
        _native.core.set_parallel_for(0)
        assert torch.equal(core_exp(x), with_hook)
    finally:
        _native._hook_threads()
    assert "torch" in _native.threading


@pytest.mark.skipif(COMPILED != "native", reason="CPU tensors do not run on the core")
def test_a_missing_core_is_reported_and_not_silent(monkeypatch):
    monkeypatch.setattr(_native, "core", None)
    monkeypatch.setattr(_native, "_why_not", "the compiled core is not built")
    logits, u = torch.randn(1, 2, 3), torch.randn(1, 1, 2, 3)
    with pytest.warns(FallbackWarning, match="not built"):
        assert torch.equal(softmax_gn(logits, u), softmax_gn_ref(logits, u))
    with pytest.raises(BackendError, match="not built"):
        softmax_gn(logits, u, backend="native")
    assert not native_available()
    assert why_not_native()
    assert ("backends", "CPU tensors", "reference: the compiled core is not built") in doctor.report()


def test_choice_gives_its_reason():
    x = torch.randn(2)
    assert choose("softmax_gn", "reference", x) == ("reference", "it was asked for")
    assert "fake" in choose("softmax_gn", "auto", torch.randn(2, device="meta").as_subclass(Marked)).why
    if WHY_NOT is None:
        assert choose("softmax_gn", "auto", x).backend == COMPILED
        assert "meta" in choose("softmax_gn", "auto", x.to("meta")).why


class Marked(torch.Tensor):
    pass


def test_fake_tensors_and_compile_take_the_reference():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert softmax_gn(torch.randn(2, 3, 4), torch.randn(2, 1, 3, 4)).shape == (2, 1, 3, 4)
    logits, u = torch.randn(2, 3, 4), torch.randn(2, 1, 3, 4)
    traced = torch.compile(softmax_gn, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(logits, u), softmax_gn_ref(logits, u))


def test_doctor_rows():
    rows = doctor.report()
    assert all(len(row) == 3 and all(isinstance(cell, str) and cell for cell in row) for row in rows)
    assert {section for section, *_ in rows} >= {"versions", "core", "threads", "backends", "ops"}
    assert [what for section, what, _ in rows if section == "ops"] == list(OPS)
    assert not [row for row in rows if "FAILED" in row[2]]
    if native_available():
        assert sum("dispatched, self-test passed" in status for _, _, status in rows) == 1
