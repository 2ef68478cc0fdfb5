"""What products are made of, and how far from float64 they are: on unit-scale data, relative to the largest entry."""

from __future__ import annotations

import pytest
import torch
from cases import generator

from tlxml_fast.ops._triton import INTERPRETED
from tlxml_fast.ops.convolution import Sizes, conv_gram, conv_pull, conv_push, examples
from tlxml_fast.ops.im2col import Window
from tlxml_fast.ops.stacked_mm import stacked_mm

pytestmark = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="needs a CUDA device, or TRITON_INTERPRET=1"
)
DEVICE = "cpu" if INTERPRETED else "cuda"
MOST = {"fp32": 1e-5, "tf32x3": 2e-5, "tf32": 2e-3, "bf16": 2e-2}


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.cpu().double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("precision", MOST)
def test_convolution(precision):
    size, window = Sizes(1, 1, 6, 6, 2, 64, 64), Window((3, 3), (1, 1), (1, 1))
    calls = examples(torch.float32, generator(), size, window)
    errors = {}
    for name, function in (("conv_push", conv_push), ("conv_pull", conv_pull), ("conv_gram", conv_gram)):
        _, reference, arguments = calls[name]
        given = [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in arguments]
        want = reference(*(x.double() if isinstance(x, torch.Tensor) else x for x in arguments))
        errors[name] = error(function(*given, precision=precision), want)
    print(precision, {name: f"{e:.1e}" for name, e in errors.items()})
    assert max(errors.values()) <= MOST[precision]


@pytest.mark.parametrize("precision", MOST)
def test_stacked_mm(precision):
    a, b = (torch.randn(3, *shape, generator=generator()) for shape in ((40, 300), (300, 50)))
    found = error(stacked_mm(a.to(DEVICE), b.to(DEVICE), precision=precision), a.double() @ b.double())
    print(precision, f"stacked_mm {found:.1e}")
    assert found <= MOST[precision]
