"""The kernels of layers against their references in float64, at the shapes of `cases`; each convolution's adjoints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from backend import COMPILED, needs_compiled, needs_native
from cases import DTYPES, IM2COL, NORM_ACT_POOL, WINOGRAD, assert_near, generator
from torch import Tensor

from tlxml_fast.ops import im2col, in_double, norm_act_pool, winograd

pytestmark = needs_compiled

CASES = [
    *((norm_act_pool, (size, K, pool, batch)) for size, K, pool in NORM_ACT_POOL for batch in (True, False)),
    *((im2col, case) for case in IM2COL),
    *((winograd, case) for case in WINOGRAD),
]


def tensors(result: Tensor | tuple | None) -> Iterator[Tensor]:
    for x in result if isinstance(result, tuple) else (result,):
        if x is not None:
            yield x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("module", "case"), CASES, ids=lambda x: getattr(x, "__name__", str(x)).rpartition(".")[2]
)
def test_against_truth(module, case, dtype):
    for name, (function, reference, arguments) in module.examples(dtype, generator(), *case).items():
        want = reference(*map(in_double, arguments))
        got = function(*arguments)
        for g, w in zip(tensors(got), tensors(want), strict=True):
            assert g.shape == w.shape, name
            assert_near(g, w, dtype)


@pytest.mark.skipif(COMPILED != "triton", reason="on the CPU a sum has one part")
@pytest.mark.parametrize("parts", [8, 11])
def test_sums_in_parts(parts):
    """What reads them adds them."""
    case = ((2, 3, 6, 5, 4), 3, norm_act_pool.Pool(2, 2))
    calls = norm_act_pool.examples(torch.float64, generator(), *case, parts=parts)
    for name in ("norm_act_pool_jvp", "norm_act_pool_vjp"):
        function, reference, arguments = calls[name]
        assert_near(function(*arguments), reference(*arguments), torch.float64)
    function, reference, (p, gy, gx, gaffine, dgy, dx, chosen, moments, *affine) = calls["norm_act_pool_hvp"]
    shares = torch.arange(1.0, parts + 1, dtype=torch.float64)[None, :, None, None, None]
    shares = shares / shares.sum()
    given = (p, gy, gx, gaffine * shares, dgy, dx, chosen, moments * shares.flip(1)[:, :3], *affine)
    for g, w in zip(function(*given), reference(*given), strict=True):
        assert_near(g, w, torch.float64)


@needs_native
@pytest.mark.parametrize(
    ("module", "case"), CASES, ids=lambda x: getattr(x, "__name__", str(x)).rpartition(".")[2]
)
def test_bits_do_not_depend_on_threads(module, case, threads):
    def run():
        examples = module.examples(torch.float32, generator(), *case).values()
        return [x for function, _, arguments in examples for x in tensors(function(*arguments))]

    threads(1)
    want = run()
    threads(2)
    assert all(map(torch.equal, run(), want))


@pytest.mark.parametrize(("size", "window"), IM2COL)
def test_patches_are_adjoint(size, window):
    x = torch.randn(*size, dtype=torch.float64, generator=generator())
    u = torch.randn_like(im2col.im2col(x, window))
    torch.testing.assert_close(
        (im2col.im2col(x, window) * u).sum(), (x * im2col.col2im(u, *size[1:3], window)).sum()
    )


@pytest.mark.parametrize(("size", "padding"), WINOGRAD)
def test_tiles_make_a_convolution(size, padding):
    """data, a product with a kernel, output: torch's convolution; and both transforms' adjoints."""
    _, H, W, C = size
    x = torch.randn(*size, dtype=torch.float64, generator=generator())
    w = torch.randn(4, C, 3, 3, dtype=torch.float64, generator=generator(1))
    want = torch.nn.functional.conv2d(x.movedim(-1, 1), w, padding=padding).movedim(1, -1)
    v, u = winograd.winograd_data(x, padding), winograd.winograd_kernel(w[None, None])[:, 0, :, 0]
    m = (v.flatten(1, 3) @ u).view(*v.shape[:-1], 4)
    torch.testing.assert_close(winograd.winograd_output(m, *want.shape[1:3]), want)
    a, b = torch.randn_like(v), torch.randn_like(want)
    torch.testing.assert_close((v * a).sum(), (x * winograd.winograd_data_t(a, H, W, padding)).sum())
    torch.testing.assert_close((want * b).sum(), (m * winograd.winograd_output_t(b)).sum())
