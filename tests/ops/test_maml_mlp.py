"""The whole-task kernel against torch.func, and against itself batched in other ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backend import COMPILED, needs_compiled, needs_native
from cases import DTYPES, MAML_MLP, assert_near, maml_mlp_case
from torch import Tensor

from tlxml_fast.errors import FallbackWarning, TlxError
from tlxml_fast.ops import in_double, maml_mlp

pytestmark = needs_compiled
TRITON = COMPILED == "triton"

FUNCTIONS = {
    "logits": (),
    "jvp": ("V",),
    "adaptation": ("V",),
    "vjp": ("U",),
    "gradients": ("query_targets",),
    "gnvp": ("V", "weights"),
    "hvp": ("V", "weights", "query_targets"),
}
COVERED = [name for name in FUNCTIONS if name != "hvp" or not TRITON]


# Triton's interpreter takes milliseconds an operation: two tasks and two vectors of each shape must do there.
SHAPES = [(min(T, 2), min(K, 2), *rest) for T, K, *rest in MAML_MLP] if TRITON else MAML_MLP


def run(name: str, a: maml_mlp.Adapting, given: dict[str, Tensor], ref: str = "") -> tuple[Tensor, ...]:
    """The results of a function or, with ref="_ref", of its reference."""
    result = getattr(maml_mlp, f"maml_mlp_{name}{ref}")(a, *(given[key] for key in FUNCTIONS[name]))
    return result if isinstance(result, tuple) else (result,)


def some(a: maml_mlp.Adapting, tasks: slice) -> maml_mlp.Adapting:
    parts = {name: getattr(a, name)[tasks].contiguous() for name in ("support", "support_targets", "query")}
    return replace(a, **parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", COVERED)
def test_against_truth(name, shape, dtype):
    a, given = maml_mlp_case(*shape, dtype)
    want = run(name, in_double(a), {key: x.double() for key, x in given.items()}, "_ref")
    for got, truth in zip(run(name, a, given), want, strict=True):
        assert_near(got, truth, dtype)


@pytest.mark.parametrize("name", COVERED)
def test_squared_error(name):
    a, given = maml_mlp_case(3, 2, 4, 5, 2, (3, 4, 2), torch.float64, "mse")
    for got, truth in zip(run(name, a, given), run(name, a, given, "_ref"), strict=True):
        assert_near(got, truth, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_written_whole(dtype):
    a, given = maml_mlp_case(5, 3, 2, 3, 1, (3, 4, 2), dtype)
    shapes = {"logits": (5, 3, 2), "dlogits": (5, 3, 3, 2), "dtheta": (5, *given["V"].shape)}
    outs = {name: torch.full(shape, torch.nan, dtype=dtype) for name, shape in shapes.items()}
    maml_mlp._launch(a, 3, V=given["V"], **outs)
    assert all(torch.isfinite(out).all() for out in outs.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [3] if TRITON else [3, 18])
def test_bits_do_not_depend_on_vectors_tasks_or_threads(T, dtype, threads):
    K = 5 if TRITON else 19
    a, given = maml_mlp_case(T, K, 5, 6, 2, (4, 7, 3), dtype)
    V, U = given["V"], given["U"]
    jvp, vjp, gnvp = (run(name, a, given)[0] for name in ("jvp", "vjp", "gnvp"))
    for count in () if TRITON else (1, 2):
        threads(count)
        assert torch.equal(run("gnvp", a, given)[0], gnvp)
        assert torch.equal(run("vjp", a, given)[0], vjp)
    by_task = [slice(t, t + T // 2) for t in range(0, T, T // 2)]
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_jvp(some(a, t), V) for t in by_task]), jvp)
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_vjp(some(a, t), U[t]) for t in by_task]), vjp)
    by_vector = [slice(k, k + 3) for k in range(0, K, 3)]
    assert torch.equal(
        torch.cat([maml_mlp.maml_mlp_gnvp(a, V[k], given["weights"]) for k in by_vector]), gnvp
    )
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_vjp(a, U[:, k]) for k in by_vector], 1), vjp)


def test_adjoint_symmetric_positive_linear():
    shape = (2, 3, 2, 3, 2, (2, 3, 2)) if TRITON else (4, 6, 5, 7, 3, (4, 6, 3))
    a, given = maml_mlp_case(*shape, torch.float64)
    V, U, weights = given["V"], given["U"], given["weights"]
    jvp, vjp = maml_mlp.maml_mlp_jvp(a, V), maml_mlp.maml_mlp_vjp(a, U)
    torch.testing.assert_close((U * jvp).sum((2, 3)), (vjp * V).sum(2), rtol=1e-11, atol=1e-12)
    G = maml_mlp.maml_mlp_gnvp(a, torch.eye(V.shape[1], dtype=torch.float64), weights)
    torch.testing.assert_close(G, G.mT, rtol=1e-10, atol=1e-13)
    assert torch.linalg.eigvalsh((G + G.mT) / 2).min() >= -1e-12 * G.abs().max()
    torch.testing.assert_close(maml_mlp.maml_mlp_gnvp(a, 2 * V - V.flip(0), weights), (2 * V - V.flip(0)) @ G)


def test_cotangents_of_single_queries():
    """Rows of zeros at either end are skipped, and change nothing."""
    a, given = maml_mlp_case(2, 4, 3, 4, 2, (3, 5, 2), torch.float64)
    each = torch.eye(4, dtype=torch.float64)[:, :, None] * given["U"][:, :1]  # [2, 4, 4, C]
    torch.testing.assert_close(
        maml_mlp.maml_mlp_vjp(a, each).sum(1), maml_mlp.maml_mlp_vjp(a, given["U"][:, :1])[:, 0]
    )


@needs_native
def test_too_many_layers_are_refused():
    a, given = maml_mlp_case(1, 1, 2, 2, 1, (2,) * 10, torch.float64)
    with pytest.raises(ValueError, match="too many layers"):
        run("logits", a, given)


def test_strided_input_is_refused():
    a, _ = maml_mlp_case(2, 1, 2, 2, 1, (2, 2), torch.float64)
    with pytest.raises(TlxError, match="not contiguous"):
        maml_mlp.maml_mlp_logits(replace(a, query=a.query.mT))


@pytest.mark.skipif(not TRITON, reason="the core runs them")
@pytest.mark.parametrize(
    ("name", "widths", "why"),
    [
        ("hvp", (3, 4, 2), "no third derivatives"),
        ("logits", (2,) * 10, "too many layers"),
        ("jvp", (3, 65, 2), "up to 64 units"),
    ],
)
def test_what_the_triton_kernel_does_not_run_is_the_reference_and_said(name, widths, why):
    a, given = maml_mlp_case(2, 2, 3, 2, 1, widths, torch.float64)
    with pytest.warns(FallbackWarning, match=why):
        got = run(name, a, given)
    assert torch.equal(got[0], run(name, a, given, "_ref")[0])


@pytest.mark.parametrize("name", COVERED)
def test_many_inputs(name):
    """The first layer may be wider than all others."""
    a, given = maml_mlp_case(2, 2, 3, 17, 2, (70, 3, 2), torch.float64)
    for got, truth in zip(run(name, a, given), run(name, a, given, "_ref"), strict=True):
        assert_near(got, truth, torch.float64)


@pytest.mark.parametrize("name", COVERED)
def test_nothing_adapts(name):
    """With rates of zero MAML is the network itself."""
    a, given = maml_mlp_case(2, 2, 3, 4, 2, (3, 4, 2), torch.float64)
    frozen = maml_mlp.Mlp([layer._replace(adapted=False) for layer in a.mlp.layers])
    a = replace(a, mlp=frozen, rates=torch.zeros_like(a.rates))
    for got, truth in zip(run(name, a, given), run(name, a, given, "_ref"), strict=True):
        assert_near(got, truth, torch.float64)
