"""The case table of the engine: a small net for every kind of layer, a learner for every kind of chain, some tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tlxml_fast as tlx


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

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.first(x)), 0.1)
        y = self.norm2(self.second(y)) + self.norm3(self.beside(x))
        return F.max_pool2d(F.leaky_relu(y, 0.1), 2)


class Own(nn.Module):
    """A user's own class: functions, a view, a mean."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        x = x + torch.tanh(x)
        return self.head(x.mean((2, 3)).view(x.size(0), -1))


class Skip(nn.Module):
    """A norm that comes first, so that its input has no tangents, and a layer beside nothing."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer, self.head = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.head(torch.tanh(self.layer(x) + x))


def images(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


IMAGE, SMALL, VECTOR = (2, 7, 5), (2, 1, 1), (6,)
NETS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "mlp": (VECTOR, lambda: tlx.models.mlp(6, (9, 5), 3)),
    "tanh mlp": (VECTOR, lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))),
    "batch norm 1d, tanh": (
        VECTOR,
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)),
    ),
    "batch norm 1d first, a sum": (VECTOR, Skip),
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
        lambda: images(
            nn.Conv2d(2, 3, 3, padding=1), nn.LayerNorm((3, 7, 5)), nn.Conv2d(3, 4, 3), features=60
        ),
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
            nn.BatchNorm2d(5, affine=False),
            nn.ReLU(),
            nn.Conv2d(5, 3, 3, padding=1),
            features=3,
        ),
    ),
    "conv4": ((1, 16, 16), lambda: tlx.models.conv4(5, image_size=16, ways=3)),
    "resnet-12": (
        (3, 16, 16),
        lambda: images(Residual(3, 3), Residual(3, 4), Residual(4, 4), Residual(4, 5), features=5),
    ),
    "own class": (IMAGE, Own),
}
LEARNERS: dict[str, Callable[[nn.Module], tlx.Learner]] = {
    "maml, 1 step": lambda net: tlx.MAML(net, 0.3, 1),
    "maml, 3 steps": lambda net: tlx.MAML(net, 0.2, 3),
    "maml, 5 steps": lambda net: tlx.MAML(net, 0.1, 5),
    "maml, running": lambda net: tlx.MAML(net, 0.2, 2, norm="running"),
    "maml, regression": lambda net: tlx.MAML(net, 0.2, 2, loss="mse"),
    "anil": lambda net: tlx.MAML(net, 0.3, 2, adapt="head"),
    "learned rates": lambda net: tlx.MAML(net, 0.2, 2, learn_inner_lr=True),
    "protonet": lambda net: tlx.ProtoNet(net, scale=0.5),
    "protonet, apart": lambda net: tlx.ProtoNet(net, "cosine", joint_forward=False),
    "protonet, euclidean": lambda net: tlx.ProtoNet(net, "euclidean"),
}

# One query: their statistics would be over a single value where it is normalised by itself.
SINGLE = {"batch norm 1d, tanh", "batch norm 1d first, a sum", "one pixel"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    """float64 numbers that float32 holds too."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def made(net: str) -> nn.Module:
    """In float32; its parameters are not at their initial 0 and 1, and its running statistics saw something."""
    features, build = NETS[net]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        with torch.no_grad():
            for p in module.parameters():
                p += 0.1 * torch.randn_like(p)
            module.train()(torch.randn(20, *features))
    return module


def learner(net: str, kind: str) -> tlx.Learner:
    return LEARNERS[kind](made(net))


def some_tasks(net: str, kind: str = "", count: int = 2, queries: int = 4, seed: int = 3) -> list[tlx.Task]:
    """Three ways, five support examples; float32 numbers."""
    features, labels = NETS[net][0], torch.tensor([0, 1, 2, 0, 1])
    made = []
    for t in range(count):
        x = normal(5 + queries, *features, seed=100 * seed + t)
        y = torch.cat([labels, labels[torch.arange(queries) % 5]])
        if "regression" in kind:
            y = normal(5 + queries, 3, seed=100 * seed + t + 50)
        made.append(tlx.Task(x[:5], y[:5], x[5:], y[5:], name=f"task {t}"))
    return made


def products(lin: tlx.Linearization, hvp: bool = True) -> dict[str, Tensor]:
    """Everything that a linearization computes, at vectors that are always the same.

    One vector for the exact Hessian, on which the reference takes most of the time.
    """
    V = lin.vectors(normal(3, lin.q, seed=1), lin.q)
    U = normal(lin.T, 3, lin.n, lin.C, seed=2)
    weights = torch.linspace(0.25, 2, lin.T, dtype=torch.float64)
    return {
        "logits": lin.logits,
        "jvp": lin.jvp(V),
        "vjp": lin.vjp(U),
        "gradients": lin.gradients(),
        "gnvp": lin.gnvp(V, weights),
        **({"hvp": lin.hvp(V[:1], weights)} if hvp else {}),
    }


# These take torch.func, or the engine, seconds each.
LONG = {("resnet-12", "maml, 3 steps"), ("resnet-12", "maml, 5 steps"), ("conv4", "maml, 5 steps")}


def crossed(but: Collection[str] = ()) -> list:
    """Every net with every learner; running statistics only where there are some."""
    return [
        pytest.param(net, kind, marks=[pytest.mark.slow] * ((net, kind) in LONG), id=f"{net} - {kind}")
        for net in NETS
        for kind in LEARNERS
        if net not in but and (kind != "maml, running" or "BatchNorm" in str(made(net)))
    ]
