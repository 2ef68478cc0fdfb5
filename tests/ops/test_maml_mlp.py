"""The whole-task kernel against torch.func, and against itself batched in other ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import DTYPES, MAML_MLP, assert_near, maml_mlp_case
from torch import Tensor

from tlxml_fast.errors import TlxError
from tlxml_fast.ops import in_double, maml_mlp, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="no core")

FUNCTIONS = {
    "logits": (),
    "jvp": ("V",),
    "adaptation": ("V",),
    "vjp": ("U",),
    "gradients": ("query_targets",),
    "gnvp": ("V", "weights"),
    "hvp": ("V", "weights", "query_targets"),
}


def run(name: str, a: maml_mlp.Adapting, given: dict[str, Tensor], ref: str = "") -> tuple[Tensor, ...]:
    """The results of a function or, with ref="_ref", of its reference."""
    result = getattr(maml_mlp, f"maml_mlp_{name}{ref}")(a, *(given[key] for key in FUNCTIONS[name]))
    return result if isinstance(result, tuple) else (result,)


def some(a: maml_mlp.Adapting, tasks: slice) -> maml_mlp.Adapting:
    parts = {name: getattr(a, name)[tasks].contiguous() for name in ("support", "support_targets", "query")}
    return replace(a, **parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MAML_MLP, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_truth(name, shape, dtype):
    a, given = maml_mlp_case(*shape, dtype)
    want = run(name, in_double(a), {key: x.double() for key, x in given.items()}, "_ref")
    for got, truth in zip(run(name, a, given), want, strict=True):
        assert_near(got, truth, dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
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
@pytest.mark.parametrize("T", [3, 18])
def test_bits_do_not_depend_on_vectors_tasks_or_threads(T, dtype, threads):
    a, given = maml_mlp_case(T, 19, 5, 6, 2, (4, 7, 3), dtype)
    V, U = given["V"], given["U"]
    jvp, vjp, gnvp = (run(name, a, given)[0] for name in ("jvp", "vjp", "gnvp"))
    for count in (1, 2):
        threads(count)
        assert torch.equal(run("gnvp", a, given)[0], gnvp)
        assert torch.equal(run("vjp", a, given)[0], vjp)
    by_task = [slice(t, t + 5) for t in range(0, T, 5)]
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_jvp(some(a, t), V) for t in by_task]), jvp)
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_vjp(some(a, t), U[t]) for t in by_task]), vjp)
    by_vector = [slice(k, k + 3) for k in range(0, 19, 3)]
    assert torch.equal(
        torch.cat([maml_mlp.maml_mlp_gnvp(a, V[k], given["weights"]) for k in by_vector]), gnvp
    )
    assert torch.equal(torch.cat([maml_mlp.maml_mlp_vjp(a, U[:, k]) for k in by_vector], 1), vjp)


def test_adjoint_symmetric_positive_linear():
    a, given = maml_mlp_case(4, 6, 5, 7, 3, (4, 6, 3), torch.float64)
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


def test_too_many_layers_and_strided_input_are_refused():
    a, given = maml_mlp_case(1, 1, 2, 2, 1, (2,) * 10, torch.float64)
    with pytest.raises(ValueError, match="too many layers"):
        run("logits", a, given)
    b, _ = maml_mlp_case(2, 1, 2, 2, 1, (2, 2), torch.float64)
    with pytest.raises(TlxError, match="not contiguous"):
        maml_mlp.maml_mlp_logits(replace(b, query=b.query.mT))
