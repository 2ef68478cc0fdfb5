"""The engine against the reference, layer kind by layer kind; plans of users' own classes; what has no plan."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from oracle import near
from torch import nn

import tlxml_fast as tlx
from tlxml_fast.errors import BackendError, FallbackWarning
from tlxml_fast.linearize import NativeLinearization, ReferenceLinearization
from tlxml_fast.ops import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="no core")
EXACT = 1e-10


class Residual(nn.Module):
    """conv – norm – leaky – conv – norm, and a 1×1 convolution beside them: a block of ResNet-12."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(outputs) for _ in range(3))
        self.beside = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.norm1(self.first(x)), 0.1)
        y = self.norm2(self.second(y)) + self.norm3(self.beside(x))
        return F.max_pool2d(F.leaky_relu(y, 0.1), 2)


class Own(nn.Module):
    """A user's own class: functions, a view, a mean."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.body(x))
        x = x + torch.tanh(x)
        return self.head(x.mean((2, 3)).view(x.size(0), -1))


def images(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


IMAGE, SMALL, VECTOR = (2, 7, 5), (2, 1, 1), (6,)
NETS = {
    "batch norm 1d, tanh": (
        VECTOR,
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)),
    ),
    "layer norm, gelu": (
        VECTOR,
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)),
    ),
    "sigmoid, dropout, identity, no bias": (
        VECTOR,
        lambda: nn.Sequential(
            nn.Linear(6, 5, bias=False),
            nn.Sigmoid(),
            nn.Dropout(0.5),
            nn.Sequential(nn.Identity(), nn.Linear(5, 3)),
        ),
    ),
    "group norm, leaky relu, average pool": (
        IMAGE,
        lambda: images(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.AvgPool2d(2), features=8
        ),
    ),
    "instance norm, adaptive pool": (
        IMAGE,
        lambda: images(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.InstanceNorm2d(5, affine=True),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            features=20,
        ),
    ),
    "layer norm of images": (
        IMAGE,
        lambda: images(nn.Conv2d(2, 3, 3, padding=1), nn.LayerNorm((3, 7, 5)), features=105),
    ),
    "strided, without bias": (
        IMAGE,
        lambda: images(
            nn.Conv2d(2, 3, (3, 2), stride=(2, 1), bias=False), nn.BatchNorm2d(3), nn.Tanh(), features=36
        ),
    ),
    "winograd, overlapping pool": (
        IMAGE,
        lambda: images(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(5, 4, 3, padding=1),
            nn.ReLU(),
            features=48,
        ),
    ),
    "ceil mode, no norm": (
        IMAGE,
        lambda: images(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), features=48
        ),
    ),
    "one pixel": (
        SMALL,
        lambda: images(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 3, 3, padding=1),
            features=3,
        ),
    ),
    "resnet-12": (
        (3, 16, 16),
        lambda: images(Residual(3, 3), Residual(3, 4), Residual(4, 4), Residual(4, 5), features=5),
    ),
    "own class": (IMAGE, Own),
}
LEARNERS = {
    "maml, 1 step": lambda net: tlx.MAML(net, 0.3, 1),
    "maml, 3 steps": lambda net: tlx.MAML(net, 0.2, 3),
    "anil": lambda net: tlx.MAML(net, 0.3, 2, adapt="head"),
    "learned rates": lambda net: tlx.MAML(net, 0.2, 2, learn_inner_lr=True),
    "protonet": lambda net: tlx.ProtoNet(net, scale=0.5),
    "protonet, apart": lambda net: tlx.ProtoNet(net, "cosine", joint_forward=False),
}


def some_tasks(features: tuple[int, ...], count: int = 2) -> list[tlx.Task]:
    g = torch.Generator().manual_seed(3)
    y = torch.tensor([0, 1, 2, 0, 1])
    return [
        tlx.Task(
            torch.randn(5, *features, generator=g).double(), y,
            torch.randn(4, *features, generator=g).double(), y[:4],
        )
        for _ in range(count)
    ]  # fmt: skip


def made(net: str) -> nn.Module:
    torch.manual_seed(0)
    module = NETS[net][1]().double()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn_like(p)
    return module


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("net", NETS)
def test_equals_the_reference(net, kind):
    learner, tasks = LEARNERS[kind](made(net)), some_tasks(NETS[net][0])
    native = tlx.linearize(learner, tasks, "native", strict=True)
    reference = tlx.linearize(learner, tasks, "reference")
    assert isinstance(native, NativeLinearization)
    g = torch.Generator().manual_seed(1)
    V = torch.randn(3, native.q, generator=g).double()
    U = torch.randn(2, 3, native.n, native.C, generator=g).double()
    near(native.logits, reference.logits, EXACT)
    jvp, vjp = native.jvp(V), native.vjp(U)
    near(jvp, reference.jvp(V), EXACT)
    near(vjp, reference.vjp(U), EXACT)
    near((vjp * V).sum(2), (jvp * U).sum((2, 3)), EXACT)
    near(native.gradients(), reference.gradients(), EXACT)
    weights = torch.tensor([0.25, 2.0])
    near(native.gnvp(V, weights), reference.gnvp(V, weights), EXACT)
    near(native.hvp(V, weights), reference.hvp(V, weights), EXACT)
    near(torch.cat([native.gnvp(v[None]) for v in V]), native.gnvp(V), 1e-12)


@pytest.mark.parametrize("net", ["batch norm 1d, tanh", "winograd, overlapping pool"])
def test_frozen_parameters_are_constants(net):
    module = made(net)
    next(module.parameters()).requires_grad_(False)
    lins = [
        tlx.linearize(tlx.MAML(module, 0.3, 2), some_tasks(NETS[net][0]), b) for b in ("native", "reference")
    ]
    V = torch.randn(2, lins[0].q, generator=torch.Generator().manual_seed(0)).double()
    near(lins[0].gnvp(V), lins[1].gnvp(V), EXACT)
    near(lins[0].hvp(V), lins[1].hvp(V), EXACT)


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
    learner, tasks = tlx.MAML(net().double()), some_tasks(features)
    lin = tlx.linearize(learner, tasks)
    assert type(lin) is ReferenceLinearization
    assert reason in lin.report.reason
    with pytest.raises(BackendError, match=reason):
        tlx.linearize(learner, tasks, strict=True)
    with pytest.warns(FallbackWarning, match=reason):
        tlx.linearize(learner, tasks, "native")


@pytest.mark.parametrize("net", ["batch norm 1d, tanh", "winograd, overlapping pool"])
def test_chunks_of_tasks_and_vectors_change_nothing(net, monkeypatch):
    learner, tasks = tlx.MAML(made(net), 0.3, 2), some_tasks(NETS[net][0], 5)
    whole = tlx.linearize(learner, tasks)
    V = torch.randn(7, whole.q, generator=torch.Generator().manual_seed(0)).double()
    want = whole.gnvp(V), whole.gradients(), whole.hvp(V)
    monkeypatch.setattr(NativeLinearization, "block_size", 2)
    monkeypatch.setattr(NativeLinearization, "vectors_at_once", lambda self: 3)
    parts = tlx.linearize(learner, tasks)
    for a, b in zip((parts.gnvp(V), parts.gradients(), parts.hvp(V)), want, strict=True):
        near(a, b, 1e-12)
