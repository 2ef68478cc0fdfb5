"""The strict interpreter itself: each thing it looks for, planted; and its counters, on kernels counted by hand."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
import strict_interpreter
import triton
import triton.language as tl


@triton.jit
def copy(x, out, size, ahead, LENGTH: tl.constexpr, MASKED: tl.constexpr = True):
    i = tl.program_id(0) * LENGTH + tl.arange(0, LENGTH)
    mask = i < size if MASKED else i >= 0
    tl.store(out + i, tl.load(x + i + ahead, mask=mask), mask=mask)


@triton.jit
def fill(out, value, LENGTH: tl.constexpr, APART: tl.constexpr):
    i = tl.program_id(0) * APART + tl.arange(0, LENGTH)
    tl.store(out + i, tl.full((LENGTH,), 0.0, tl.float32) + value)


@triton.jit
def fill_double(out, value: tl.float64, LENGTH: tl.constexpr):
    tl.store(out + tl.arange(0, LENGTH), tl.full((LENGTH,), 0.0, tl.float64) + value)


@triton.jit
def scaled(out, value, LENGTH: tl.constexpr):
    tl.store(out + tl.arange(0, LENGTH), tl.full((LENGTH,), 0.0, tl.float64) + value)


@triton.jit
def product(x, y, out, SIDE: tl.constexpr, PRECISION: tl.constexpr):
    i = tl.arange(0, SIDE)
    at = i[:, None] * SIDE + i[None, :]
    z = tl.dot(tl.load(x + at), tl.load(y + at), input_precision=PRECISION)
    tl.store(out + at, z)


@triton.jit
def far(out, stride, LENGTH: tl.constexpr):
    i = tl.arange(0, LENGTH) * stride
    tl.store(out + tl.arange(0, LENGTH), i)


@triton.jit
def same(out, LENGTH: tl.constexpr):
    i = tl.arange(0, LENGTH)
    tl.store(out + i // 2, i)


def test_what_a_copy_moves():
    x, out = torch.randn(2, 256)
    with strict_interpreter.moved() as launches:
        copy[(4,)](x, out, 256, 0, LENGTH=64)
    assert torch.equal(x, out)
    assert launches == [("copy", 1024, 1024, 2048, 2048)]


def test_what_overlapping_programs_move():
    """Neighbours load the same 64 numbers twice: twice through their caches, once from memory."""
    x, out = torch.randn(2, 512)
    with strict_interpreter.moved() as launches:
        copy[(2,)](x, out[:64], 0, 0, LENGTH=64)  # masked off: nothing
        fill[(1,)](out, 1.0, LENGTH=64, APART=0)
        copy[(1,)](out, out, 32, 0, LENGTH=64)
    assert [(m.loaded, m.stored, m.memory) for m in launches] == [(0, 0, 0), (0, 256, 256), (128, 128, 256)]


@pytest.mark.parametrize("ahead", [0, 1])
def test_reads_and_writes_outside(ahead):
    x, out = torch.zeros(100), torch.zeros(128)
    with pytest.raises(Exception, match="copy reads"):
        copy[(2,)](x, out, 100 + ahead, 1 - ahead, LENGTH=64, MASKED=bool(ahead))
    with pytest.raises(Exception, match="copy writes"):
        copy[(2,)](out, x, 128, 0, LENGTH=64)


def test_views_are_tensors_of_their_own():
    whole = torch.zeros(200)
    with pytest.raises(Exception, match="copy reads 28 numbers"):
        copy[(2,)](whole[:100], torch.empty(128), 128, 0, LENGTH=64)


def test_programs_that_write_the_same():
    out = torch.zeros(128)
    fill[(2,)](out, 1.0, LENGTH=64, APART=64)
    with pytest.raises(AssertionError, match="programs 0 and 1 write"):
        fill[(2,)](out, 1.0, LENGTH=64, APART=63)
    with pytest.raises(Exception, match="twice in one store"):
        same[(1,)](torch.zeros(64, dtype=torch.int32), LENGTH=64)


def test_a_program_that_reads_what_another_writes():
    x = torch.zeros(129)
    copy[(1,)](x, x, 128, 1, LENGTH=128)
    with pytest.raises(AssertionError, match="program 0 reads what program 1 writes"):
        copy[(2,)](x, x, 128, 1, LENGTH=64)


def test_numbers_come_in_float32_unless_declared():
    out = torch.empty(16, dtype=torch.float64)
    scaled[(1,)](out, 1.7, LENGTH=16)
    assert out[0] == torch.tensor(1.7, dtype=torch.float32).double() != 1.7
    fill_double[(1,)](out, 1.7, LENGTH=16)
    assert (out == 1.7).all()


def test_memory_nobody_wrote_is_nan():
    assert torch.empty(3, 5).isnan().all()
    assert torch.zeros(2).new_empty(7).isnan().all()
    assert torch.empty_like(torch.zeros(2, dtype=torch.float64)).isnan().all()


def test_integers_that_overflow():
    out = torch.empty(64, dtype=torch.int32)
    far[(1,)](out, 2**25, LENGTH=64)
    with pytest.raises(Exception, match="overflow"):
        far[(1,)](out, 2**26, LENGTH=64)


@pytest.mark.parametrize(
    ("precision", "dtype", "least", "most"),
    [
        ("ieee", torch.float32, 0, 1e-6),
        ("tf32", torch.float32, 1e-4, 1e-2),
        ("tf32x3", torch.float32, 1e-8, 5e-6),
        ("ieee", torch.float64, 0, 1e-14),
        ("ieee", torch.bfloat16, 0, 1e-6),
    ],
)
def test_products_have_the_errors_of_their_precision(precision, dtype, least, most):
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, 64, dtype=torch.float64, generator=g).to(dtype) for _ in range(2))
    out = torch.empty(64, 64, dtype=dtype if dtype == torch.float64 else torch.float32)
    product[(1,)](x, y, out, SIDE=64, PRECISION=precision)
    want = x.double() @ y.double()
    error = ((out - want).abs().max() / want.abs().max()).item()
    assert least <= error <= most
