"""The engine on modules, learners and tasks that nobody chose: near the reference, adjoint, symmetric, PSD, linear."""

from __future__ import annotations

import os

import pytest
from choices import nearest, separation
from drawn import Problem, problems
from hypothesis import HealthCheck, Phase, assume, given, settings
from nets import normal
from torch import Tensor

from tlxml_fast.linearize import Linearization
from tlxml_fast.ops import native_available

pytestmark = [
    pytest.mark.skipif(not native_available(), reason="no core"),
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
]
EXACT = 1e-10


def some(examples: int) -> settings:
    """So many examples, always the same; TLXML_FAST_EXAMPLES times as many, new every time."""
    more = int(os.environ.get("TLXML_FAST_EXAMPLES", "0"))
    return settings(
        max_examples=examples * max(1, more),
        derandomize=not more,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def vectors(p: Problem, q: int, n: int, C: int) -> tuple[Tensor, Tensor, Tensor]:
    """V and W, [K, q], and U, [T, K, n, C]."""
    return normal(p.K, q), normal(p.K, q, seed=1), normal(len(p.tasks), p.K, n, C, seed=2)


def assume_well_conditioned(p: Problem, lin: Linearization) -> None:
    """Adaptation does not diverge, no output is certain (then Λ ≈ 0), no choice or distance hangs on rounding."""
    assume(lin.logits.abs().max() < 100)
    assume(p.learner.loss.regression or lin.logits.softmax(-1).max() < 0.9999)
    for task in p.tasks:
        assume(separation(p.learner, task) > 1e-3)
        assume(nearest(p.learner, task) > 1e-7)


def near(got: Tensor, want: Tensor) -> None:
    """Relative to the largest entry; what vanishes for all vectors does so to rounding."""
    size = max(float(want.abs().max()), 1e-3)
    error = float((got - want).abs().max()) / size
    assert error <= EXACT, f"relative error {error:.1e} at size {size:.1e}"


@some(200)
@given(problems())
def test_equals_the_reference(p):
    native, reference = p.native(), p.reference()
    assume_well_conditioned(p, native)
    V, _, U = vectors(p, native.q, native.n, native.C)
    near(native.logits, reference.logits)
    near(native.jvp(V), reference.jvp(V))
    near(native.vjp(U), reference.vjp(U))
    near(native.gradients(), reference.gradients())
    near(native.gnvp(V), reference.gnvp(V))
    near(native.per_query_gradients(), reference.per_query_gradients())


@some(90)
@given(problems())
def test_exact_hessian_equals_the_reference(p):
    native = p.native()
    assume(native.passes.no_third_derivative() is None)
    assume_well_conditioned(p, native)
    V, _, _ = vectors(p, native.q, native.n, native.C)
    near(native.hvp(V), p.reference().hvp(V))


@some(220)
@given(problems())
def test_adjoint_symmetric_positive_linear(p):
    lin = p.native()
    assume_well_conditioned(p, lin)
    V, W, U = vectors(p, lin.q, lin.n, lin.C)
    JV, JtU, JW = lin.jvp(V), lin.vjp(U), lin.jvp(W)
    near((JtU * V).sum(2), (JV * U).sum((2, 3)))
    near(lin.jvp(2 * V - 3 * W), 2 * JV - 3 * JW)
    for product in (lin.gnvp, lin.hvp)[: 1 if lin.passes.no_third_derivative() else 2]:
        MV, MW = product(V), product(W)
        near((MV * W).sum(1), (MW * V).sum(1))
        near(product(2 * V - 3 * W), 2 * MV - 3 * MW)
    GV = lin.gnvp(V)
    assert (GV * V).sum(1).min() >= -1e-12 * max(1.0, float(GV.norm() * V.norm()))
