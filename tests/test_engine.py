"""The engine against the float64 reference, layer kind by layer kind; plans of users' own classes; what has no plan."""

from __future__ import annotations

import pytest
import torch
from nets import (
    IMAGE,
    LEARNERS,
    NETS,
    SINGLE,
    VECTOR,
    crossed,
    images,
    learner,
    made,
    normal,
    products,
    some_tasks,
)
from oracle import near
from torch import nn

import tlxml_fast as tlx
from tlxml_fast.errors import BackendError, FallbackWarning
from tlxml_fast.linearize import CompiledLinearization, ReferenceLinearization
from tlxml_fast.ops import native_available

pytestmark = [
    pytest.mark.skipif(not native_available(), reason="no core"),
    pytest.mark.usefixtures("one_thread"),
]
EXACT = 1e-10


def assert_equals_the_reference(learner: tlx.Learner, tasks: list[tlx.Task]) -> None:
    native = tlx.linearize(learner, tasks, "native", torch.float64, strict=True)
    assert isinstance(native, CompiledLinearization)
    hvp = native.passes.no_third_derivative() is None  # else it is the reference's own, and says so
    want = products(tlx.linearize(learner, tasks, "reference", torch.float64), hvp)
    for name, got in products(native, hvp).items():
        near(got, want[name], EXACT)


@pytest.mark.parametrize(("net", "kind"), crossed())
def test_equals_the_reference(net, kind):
    assert_equals_the_reference(learner(net, kind), some_tasks(net, kind))


@pytest.mark.parametrize("kind", ["maml, 1 step", "protonet", "protonet, apart"])
@pytest.mark.parametrize("net", NETS)
def test_one_query(net, kind):
    made, tasks = learner(net, kind), some_tasks(net, queries=1)
    if net in SINGLE and kind != "protonet":
        for backend in ("native", "reference"):
            with pytest.raises(tlx.LearnerError, match="more than 1 value per channel"):
                tlx.linearize(made, tasks, backend)
    else:
        assert_equals_the_reference(made, tasks)


@pytest.mark.parametrize("kind", ["maml, 3 steps", "learned rates", "protonet, apart"])
@pytest.mark.parametrize("net", NETS)
def test_adaptation(net, kind):
    made, tasks = learner(net, kind), some_tasks(net, count=1)
    native, reference = (tlx.linearize(made, tasks, b, torch.float64) for b in ("native", "reference"))
    V = normal(2, native.q)
    near(native.adaptation_block(slice(0, 1), V), reference.adaptation_block(slice(0, 1), V), EXACT)


@pytest.mark.parametrize("net", ["batch norm 1d, tanh", "winograd, overlapping pool", "ceil mode, no norm"])
def test_frozen_parameters_are_constants(net):
    module = made(net)
    module.get_parameter("0.weight").requires_grad_(False)
    assert_equals_the_reference(tlx.MAML(module, 0.3, 2), some_tasks(net))


@pytest.mark.parametrize("kind", ["maml, 1 step", "protonet"])
def test_a_bias_before_batch_statistics_alone(kind):
    """It changes nothing, and everything else is frozen: the derivatives are zero."""
    module = made("winograd, overlapping pool").requires_grad_(False)
    module.get_parameter("0.bias").requires_grad_(True)
    tasks = some_tasks("winograd, overlapping pool")
    for name, product in products(tlx.linearize(LEARNERS[kind](module), tasks, "native")).items():
        assert name == "logits" or product.abs().max() == 0


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


class Scaled(Branches):
    def forward(self, x):
        return 2 * self.linear(x)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 3))
    net[0].register_forward_hook(lambda module, args, output: 2 * output)
    return net


WITHOUT_A_PLAN = {
    "a hook": (VECTOR, hooked, "hook"),
    "weight norm": (
        VECTOR,
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
        "parametrized",
    ),
    "groups": (IMAGE, lambda: images(nn.Conv2d(2, 2, 3, groups=2), features=30), "groups"),
    "control flow": (VECTOR, Branches, "cannot trace"),
    "a constant": (VECTOR, Scaled, "mul"),
    "tanh gelu": (VECTOR, lambda: nn.Sequential(nn.GELU("tanh"), nn.Linear(6, 3)), "tanh approximation"),
    "softplus": (VECTOR, lambda: nn.Sequential(nn.Softplus(), nn.Linear(6, 3)), "Softplus"),
}


@pytest.mark.parametrize("name", WITHOUT_A_PLAN)
def test_no_plan_is_said(name):
    features, net, reason = WITHOUT_A_PLAN[name]
    tasks = [tlx.Task(torch.ones(3, *features), torch.arange(3), torch.ones(2, *features), torch.arange(2))]
    learner = tlx.MAML(net())
    lin = tlx.linearize(learner, tasks)
    assert type(lin) is ReferenceLinearization
    assert reason in lin.report.reason
    with pytest.raises(BackendError, match=reason):
        tlx.linearize(learner, tasks, strict=True)
    with pytest.warns(FallbackWarning, match=reason):
        tlx.linearize(learner, tasks, "native")
