"""The products of convolutions: the reference against torch's, adjoints, and the kernels against the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import CONVOLUTION, DTYPES, assert_near, generator

from tlxml_fast.ops import in_double
from tlxml_fast.ops._triton import INTERPRETED
from tlxml_fast.ops.convolution import Sizes, conv_gram, conv_pull, conv_push, examples
from tlxml_fast.ops.im2col import Window

CASES = [(Sizes(*size), window, shared) for size, window, shared in CONVOLUTION]
COMPILED = INTERPRETED or torch.cuda.is_available()


@pytest.fixture
def device() -> str:
    return "cpu" if INTERPRETED else "cuda"


def on(value, device: str):
    return value.to(device) if isinstance(value, torch.Tensor) else value


@pytest.mark.skipif(not COMPILED, reason="needs a CUDA device, or TRITON_INTERPRET=1")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_truth(case, dtype, device):
    for name, (function, reference, arguments) in examples(dtype, generator(), *case).items():
        got = function(*(on(x, device) for x in arguments))
        want = reference(*map(in_double, arguments))
        assert got.shape == want.shape, name
        assert_near(got.cpu(), want, dtype)


@pytest.mark.skipif(not COMPILED, reason="needs a CUDA device, or TRITON_INTERPRET=1")
@pytest.mark.parametrize("term", [0, 1])
def test_one_term_alone(term, device):
    size, window, shared = CASES[2]
    for function, reference, arguments in examples(torch.float64, generator(), size, window, shared).values():
        size, window, *four = arguments[:6]
        pair = [x if i // 2 == term else None for i, x in enumerate(four)]
        got = function(size, window, *(on(x, device) for x in pair), *arguments[6:])
        assert_near(got.cpu(), reference(size, window, *pair, *arguments[6:]), torch.float64)


@pytest.mark.parametrize(("size", "window", "shared"), CASES, ids=str)
def test_it_is_torchs_convolution(size, window, shared):
    x = torch.randn(size.T, size.N, size.H, size.W, size.C, dtype=torch.float64, generator=generator())
    w = torch.randn(
        size.T, size.K, *window.kernel, size.C, size.O, dtype=torch.float64, generator=generator(1)
    )
    got = conv_push(size, window, None, None, x, w.flatten(2, 3))
    for t in range(size.T):
        for k in range(size.K):
            want = F.conv2d(
                x[t].movedim(-1, 1), w[t, k].permute(3, 2, 0, 1), None, window.stride, window.padding
            ).movedim(1, -1)
            torch.testing.assert_close(got[t, :, :, :, k], want)


@pytest.mark.parametrize(("size", "window", "shared"), CASES, ids=str)
def test_adjoints(size, window, shared):
    """⟨ȳ, push⟩ is ⟨pull, dx⟩ + ⟨gram, dw⟩, in the tangents of the images and of the weights."""
    calls = examples(torch.float64, generator(), size, window, shared)
    _, _, (_, _, dx, w, x, dw) = calls["conv_push"]
    gy = calls["conv_pull"][2][2]
    y = conv_push(size, window, dx, w, x, dw)
    gx = conv_pull(size, window, gy, w, None, None)
    gw = conv_gram(size, window, x, gy, None, None, shared)
    torch.testing.assert_close((gy * y).sum(), (gx * dx).sum() + (gw * dw).sum())


@pytest.mark.skipif(not COMPILED, reason="needs a CUDA device, or TRITON_INTERPRET=1")
@pytest.mark.parametrize("total", [True, False])
def test_parts_of_a_gram(total, device, monkeypatch):
    """Of 40 positions a task: in parts that are no multiple of a tile, the last one shorter."""
    kernels = pytest.importorskip("tlxml_fast.kernels.convolution")
    monkeypatch.setattr(kernels, "PART", 34)
    monkeypatch.setattr(kernels, "LEAST_PART", 21)
    size, window = Sizes(3, 2, 4, 5, 2, 3, 4), Window((3, 3), (1, 1), (1, 1))
    function, reference, arguments = examples(torch.float64, generator(), size, window, total)["conv_gram"]
    assert_near(function(*(on(x, device) for x in arguments)).cpu(), reference(*arguments), torch.float64)
