"""Every op's case table on a CUDA device, against the references in float64. Skipped where there is none."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from cases import (
    CONVOLUTION,
    DISTANCES,
    DTYPES,
    IM2COL,
    MAML_MLP,
    NORM_ACT_POOL,
    PROJECTION,
    PROTO,
    SOFTMAX,
    STACKED_MM,
    WINOGRAD,
    assert_near,
    double,
    generator,
    maml_mlp_case,
    projection,
    proto_case,
    softmax_case,
)

from tlxml_fast.ops import (
    convolution,
    im2col,
    in_double,
    norm_act_pool,
    proto_gn,
    proto_gn_ref,
    rademacher,
    rademacher_ref,
    sjlt,
    sjlt_ref,
    softmax_gn,
    softmax_gn_ref,
    srht,
    srht_ref,
    winograd,
)
from tlxml_fast.ops import maml_mlp as mlp
from tlxml_fast.ops.srht import padded
from tlxml_fast.ops.stacked_mm import stacked_mm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LAYERS = [
    *((norm_act_pool, (size, K, pool, batch)) for size, K, pool in NORM_ACT_POOL for batch in (True, False)),
    *((im2col, case) for case in IM2COL),
    *((winograd, case) for case in WINOGRAD),
    *((convolution, (convolution.Sizes(*size), window, shared)) for size, window, shared in CONVOLUTION),
]


def moved(value: Any) -> Any:
    """A tensor or a record of tensors on the device; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.cuda()
    if is_dataclass(value):
        return replace(value, **{f.name: moved(getattr(value, f.name)) for f in fields(value)})
    return value


def near(got: Any, want: Any, dtype: torch.dtype) -> None:
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True)
    for g, w in pairs:
        if g is not None:
            assert_near(g.cpu(), w, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("module", "case"), LAYERS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_layers(module, case, dtype):
    for function, reference, arguments in module.examples(dtype, generator(), *case).values():
        near(function(*map(moved, arguments)), reference(*map(in_double, arguments)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SOFTMAX, ids=str)
def test_softmax_gn(shape, dtype):
    logits, u = softmax_case(*shape, dtype)
    near(softmax_gn(logits.cuda(), u.cuda(), backend="triton"), softmax_gn_ref(*double(logits, u)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("shape", PROTO, ids=str)
def test_proto_gn(shape, distance, dtype):
    tensors, ways = proto_case(*shape, dtype)
    got = proto_gn(*(x.cuda() for x in tensors), ways=ways, distance=distance, backend="triton")
    near(got, proto_gn_ref(*double(*tensors), ways=ways, distance=distance), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", STACKED_MM, ids=str)
def test_stacked_mm(shape, dtype):
    B, m, k, n = shape
    a, b = (
        torch.randn(B, *s, dtype=torch.float64, generator=generator()).to(dtype) for s in ((m, k), (k, n))
    )
    near(stacked_mm(a.cuda(), b.cuda()), a.double() @ b.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MAML_MLP, ids=str)
def test_maml_mlp(shape, dtype):
    a, given = maml_mlp_case(*shape, dtype)
    V, U, weights, targets = (given[name] for name in ("V", "U", "weights", "query_targets"))
    for function, reference, arguments in (
        (mlp.maml_mlp_logits, mlp.maml_mlp_logits_ref, ()),
        (mlp.maml_mlp_jvp, mlp.maml_mlp_jvp_ref, (V,)),
        (mlp.maml_mlp_adaptation, mlp.maml_mlp_adaptation_ref, (V,)),
        (mlp.maml_mlp_vjp, mlp.maml_mlp_vjp_ref, (U,)),
        (mlp.maml_mlp_gradients, mlp.maml_mlp_gradients_ref, (targets,)),
        (mlp.maml_mlp_gnvp, mlp.maml_mlp_gnvp_ref, (V, weights)),
    ):
        got = function(*map(moved, (a, *arguments)))
        near(got, reference(*map(in_double, (a, *arguments))), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PROJECTION, ids=str)
def test_projections(shape, dtype):
    x, (_, q, d) = projection(*shape, dtype), shape
    for function, reference, settings in (
        (sjlt, sjlt_ref, (d, min(d, 5))),
        (srht, srht_ref, (min(d, padded(q)),)),
        (rademacher, rademacher_ref, (d,)),
    ):
        near(function(x.cuda(), *settings, backend="triton"), reference(x.double(), *settings), dtype)
