"""Random plans: hypothesis draws a module of the layers that the engine knows, a learner around it, and its tasks.

Everything drawn is valid, and as well-conditioned as construction can make it: sizes are at least 1, and statistics are
over three values or more (one is an error, and two are ±1 after normalisation, whatever they were).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from nets import normal
from torch import Tensor, nn

import tlxml_fast as tlx

Shape = tuple[int, ...]
ENOUGH = 3


class Sum(nn.Module):
    """The sum of two branches."""

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


def after(module: nn.Module, shape: Shape) -> Shape:
    """What a module makes of an example of that shape."""
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(ENOUGH, *shape)).shape[1:])


# ---- layers; each is drawn for the shape that it is given, and the number of examples in the smallest batch -------

Drawn = Callable[[st.DrawFn, Shape, int], nn.Module]


def convolution(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    """Any kernel; as often 3×3 at stride 1, which has passes of its own."""
    channels, outputs, bias = shape[0], draw(st.integers(1, 6)), draw(st.booleans())
    if draw(st.booleans()) and min(shape[1:]) + 2 >= 3:
        padding = draw(st.integers(0 if min(shape[1:]) >= 3 else 1, 2))
        return nn.Conv2d(channels, outputs, 3, padding=padding, bias=bias)
    padding = tuple(draw(st.integers(0, 1)) for _ in range(2))
    kernel = tuple(draw(st.integers(1, min(3, n + 2 * p))) for n, p in zip(shape[1:], padding, strict=True))
    stride = tuple(draw(st.integers(1, 2)) for _ in range(2))
    return nn.Conv2d(channels, outputs, kernel, stride, padding, bias=bias)


def linear(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    return nn.Linear(shape[0], draw(st.integers(1, 6)), bias=draw(st.booleans()))


def norm(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    """Whichever has values enough; none where no norm has."""
    channels, positions, affine = shape[0], torch.Size(shape[1:]).numel(), draw(st.booleans())
    fit: list[Callable[[], nn.Module]] = [nn.Identity]
    if batch * positions >= ENOUGH:
        kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
        fit += [lambda: kind(channels, affine=affine)] * 3
    if channels * positions >= ENOUGH:
        fit.append(lambda: nn.LayerNorm(shape, elementwise_affine=affine, bias=draw(st.booleans())))
    groups = [g for g in range(1, channels + 1) if channels % g == 0 and channels // g * positions >= ENOUGH]
    if groups and len(shape) > 1:
        fit.append(lambda: nn.GroupNorm(draw(st.sampled_from(groups)), channels, affine=affine))
    if positions >= ENOUGH:
        fit.append(lambda: nn.InstanceNorm2d(channels, affine=affine))
    return draw(st.sampled_from(fit))()


def activation(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    kinds = [nn.ReLU, lambda: nn.LeakyReLU(0.1), nn.GELU, nn.Tanh, nn.Sigmoid]
    return draw(st.sampled_from(kinds))()


def pool(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    """An adaptive pool makes no more positions than there are: statistics over copies are over fewer values."""
    if draw(st.booleans()):
        return nn.AdaptiveAvgPool2d(
            [draw(st.sampled_from([*range(1, min(n, 3) + 1), None])) for n in shape[1:]]
        )
    kernel = draw(st.integers(1, 3))
    least = max(0, -(-(kernel - min(shape[1:])) // 2))
    if least > kernel // 2:
        return nn.Identity()
    padding, stride = draw(st.integers(least, kernel // 2)), draw(st.sampled_from([None, 1, 2]))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()))


def nothing(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    return draw(st.sampled_from([nn.Identity, lambda: nn.Dropout(0.5), nn.Sequential]))()


def chain(draw: st.DrawFn, shape: Shape, batch: int, layers: list[Drawn]) -> nn.Module:
    made = nn.Sequential()
    for layer in layers:
        made.append(layer(draw, shape, batch))
        shape = after(made[-1], shape)
    return made


def residual(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    """A layer that keeps the shape, or a convolution and a 1×1 beside it, in either order; or a layer used twice."""
    channels, outputs = shape[0], draw(st.integers(1, 6))
    if len(shape) == 1:
        inner: nn.Module = nn.Linear(channels, channels)
        beside: nn.Module = nn.Identity()
    else:
        inner = nn.Conv2d(channels, outputs, 3, padding=1, bias=draw(st.booleans()))
        beside = nn.Identity() if outputs == channels else nn.Conv2d(channels, outputs, 1)
    if isinstance(beside, nn.Identity) and draw(st.booleans()):
        return nn.Sequential(inner, activation(draw, shape, batch), inner)
    kept = shape if len(shape) == 1 else (outputs, *shape[1:])
    more = draw(st.lists(st.sampled_from([norm, activation]), max_size=2))
    branches = [nn.Sequential(inner, *chain(draw, kept, batch, more)), beside]
    return Sum(*draw(st.permutations(branches)))


def block(draw: st.DrawFn, shape: Shape, batch: int) -> nn.Module:
    """A layer with parameters, and up to three others after it, nested or flat."""
    first = linear if len(shape) == 1 else convolution
    others = [norm, activation, nothing] if len(shape) == 1 else [norm, activation, pool, nothing]
    layers = [draw(st.sampled_from([first, first, residual]))]
    return chain(draw, shape, batch, layers + draw(st.lists(st.sampled_from(others), max_size=3)))


def module(draw: st.DrawFn, shape: Shape, batch: int, outputs: int | None) -> nn.Module:
    """Blocks, and a linear head where there are outputs to make; now and then some parameters are frozen."""
    blocks = draw(st.integers(1, 4))
    body = chain(draw, shape, batch, [block] * blocks)
    width = torch.Size(after(body, shape)).numel()
    if draw(st.booleans()):
        body = nn.Sequential(*(layer for part in body for layer in part))
    if outputs is not None:
        body.extend([nn.Flatten(), nn.Linear(width, outputs)])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(draw(st.integers(0, 99)))
        for p in body.parameters():
            fan = p[0].numel() if p.ndim > 1 else 1
            p.copy_(torch.randn(p.shape) / fan**0.5)
        body.train()(torch.randn(8, *shape))  # running statistics see something
    names = [name for name, _ in body.named_parameters()]
    if draw(st.integers(0, 3)) == 3:
        for name in draw(st.sets(st.sampled_from(names), max_size=len(names) - 1)):
            body.get_parameter(name).requires_grad_(False)
    return body


# ---- learners and tasks -----------------------------------------------------------------------------


class Problem:
    """A learner, tasks of one shape, the number of vectors, and how the work is cut."""

    def __init__(
        self,
        learner: tlx.Learner,
        tasks: list[tlx.Task],
        K: int,
        tasks_at_once: int,
        vectors_at_once: int,
    ):
        self.learner, self.tasks, self.K = learner, tasks, K
        self.tasks_at_once, self.vectors_at_once = tasks_at_once, vectors_at_once

    def __repr__(self) -> str:
        frozen = [name for name, p in self.learner.module.named_parameters() if not p.requires_grad]
        return (
            f"{self.learner!r} of {self.learner.module!r}, {frozen} frozen, on {len(self.tasks)} × "
            f"{self.tasks[0].shape}; K={self.K}, {self.tasks_at_once} tasks and {self.vectors_at_once} vectors at once"
        )

    def native(self) -> tlx.Linearization:
        """The engine, strict."""
        lin = tlx.linearize(self.learner, self.tasks, "native", strict=True)
        lin.block_size, lin.vectors_at_once = self.tasks_at_once, lambda: self.vectors_at_once
        return lin

    def reference(self) -> tlx.Linearization:
        """torch.func."""
        return tlx.linearize(self.learner, self.tasks, "reference")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    ways, shots, queries = draw(st.integers(2, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    shape = draw(
        st.one_of(st.tuples(st.integers(1, 6)), st.tuples(*[st.integers(1, 5)], *[st.integers(1, 9)] * 2))
    )
    if draw(st.integers(0, 2)):
        learner, outputs = maml(draw, shape, min(queries, ways * shots), ways)
    else:
        learner, outputs = protonet(draw, shape, queries, ways * shots), ways
    y = torch.arange(ways).repeat(shots)
    y = torch.cat([y, y[torch.arange(queries) % len(y)]])
    T, seed = draw(st.integers(1, 3)), draw(st.integers(0, 99))
    tasks = []
    for t in range(T):
        x = normal(len(y), *shape, seed=1000 * seed + t)
        labels = normal(len(y), outputs, seed=t) if learner.loss.regression else y
        m = ways * shots
        tasks.append(tlx.Task(x[:m], labels[:m], x[m:], labels[m:]))
    return Problem(learner, tasks, *(draw(st.integers(1, 3)) for _ in range(3)))


def maml(draw: st.DrawFn, shape: Shape, batch: int, ways: int) -> tuple[tlx.MAML, int]:
    outputs = ways + draw(st.integers(0, 1))
    net = module(draw, shape, batch, outputs)
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    adapted = draw(st.one_of(st.none(), st.lists(st.sampled_from(names), min_size=1, unique=True)))
    rate = draw(st.sampled_from([0.05, 0.3]))
    if draw(st.booleans()):
        each = names if adapted is None else adapted
        rate = {
            n: rate * torch.rand(net.get_parameter(n).shape, generator=torch.Generator().manual_seed(0))
            for n in each
        }
    return tlx.MAML(
        net.double(),
        rate,
        draw(st.integers(1, 3)),
        adapt=adapted,
        norm=draw(st.sampled_from(["batch", "batch", "running"])),
        learn_inner_lr=draw(st.booleans()),
        loss=draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse"])),
    ), outputs


def protonet(draw: st.DrawFn, shape: Shape, queries: int, support: int) -> tlx.ProtoNet:
    """A cosine needs two numbers an embedding: of one it is ±1. Scaled so that no query is certain (then Λ ≈ 0)."""
    joint = draw(st.booleans())
    net = module(draw, shape, queries + support if joint else min(queries, support), None)
    width = torch.Size(after(net, shape)).numel()
    return tlx.ProtoNet(
        net.double(),
        draw(st.sampled_from(["sqeuclidean", "euclidean", *["cosine"] * (width > 1)])),
        joint,
        draw(st.sampled_from(["batch", "batch", "running"])),
        scale=draw(st.sampled_from([0.5, 2.0])) / width,
    )
