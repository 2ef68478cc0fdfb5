"""Outer losses, their Hessians in the logits and the factors of those."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from oracle import near
from torch import Tensor

import tlxml_fast as tlx
from tlxml_fast.errors import LearnerError, TaskError
from tlxml_fast.losses import LOSSES, get_loss

SHAPES = [(1, 1), (1, 2), (4, 5), (3, 33)]  # n queries, C outputs


def draw(name: str, n: int, C: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(n + C)
    f = scale * torch.randn(n, C, generator=g, dtype=torch.float64)
    if name == "mse":
        return f, torch.randn(n, C, generator=g, dtype=torch.float64)
    if name == "binary_cross_entropy":
        return f, torch.rand(n, C, generator=g, dtype=torch.float64)
    return f, torch.randint(C, (n,), generator=g)


def hessian(name: str, f: Tensor, y: Tensor) -> Tensor:
    """By autograd, [n, C, n, C]."""
    return torch.autograd.functional.hessian(lambda f: get_loss(name)(f, y), f)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_values(name, shape):
    f, y = draw(name, *shape)
    want = {
        "mse": lambda: ((f - y) ** 2).mean(1),
        "binary_cross_entropy": lambda: -(y * f.sigmoid().log() + (1 - y) * (1 - f.sigmoid()).log()).mean(1),
        "cross_entropy": lambda: -(f.exp() / f.exp().sum(1, True))[range(len(y)), y].log(),
    }[name]()
    loss = get_loss(name)
    torch.testing.assert_close(loss.per_query(f, y), want, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(loss(f, y), want.mean(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_output_hessian_and_its_factor(name, shape):
    n, C = shape
    f, y = draw(name, n, C)
    loss, want = get_loss(name), hessian(name, f, y)
    u = torch.randn(2, n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loss.output_hessian(f[None], u[None])[0],
        torch.einsum("mcnd,knd->kmc", want, u),
        rtol=1e-11,
        atol=1e-14,
    )
    B = loss.factor(f)
    assert B.shape == (n, C, loss.rank(C))
    blocks = torch.einsum("mcr,mdr->mcd", B, B) / n
    torch.testing.assert_close(blocks, want[range(n), :, range(n)], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_autograds(name, shape):
    n, C = shape
    f, y = draw(name, n, C)
    loss, g = get_loss(name), torch.Generator().manual_seed(1)
    u, v = torch.randn(2, 1, n, 1, C, generator=g, dtype=torch.float64)
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-14)
    want = torch.autograd.functional.jacobian(lambda f: loss(f, y), f)
    close(loss.gradient(f[None], y[None])[0], want)
    close(loss.curve(f[None], u), loss.output_hessian(f[None], u.movedim(1, 2)).movedim(2, 1))
    moved = torch.func.jvp(lambda f: loss.curve(f[None], u), (f,), (v[0, :, 0],))[1]
    close(loss.third(f[None], u, v), moved)
    coordinates = loss.coordinates(f, y)[..., None]
    close((loss.factor(f) @ coordinates)[..., 0] / n, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factor_of_a_confident_prediction(dtype):
    """p of 0 and 1 to rounding: finite, and still a factor."""
    f = torch.tensor([[1e4, 0.0, -1e4], [-40.0, 0.0, 40.0], [0.0, 0.0, -200.0]], dtype=dtype)
    B, p = get_loss("cross_entropy").factor(f), f.double().softmax(1)
    want = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    error = (B.double() @ B.double().mT - want).abs().max()
    assert error <= 4 * torch.finfo(dtype).eps


def test_targets_of_one_output_may_lack_the_column():
    f, y = draw("mse", 4, 1)
    near(get_loss("mse").per_query(f, y[:, 0]), get_loss("mse").per_query(f, y), 0)


def test_unknown_loss():
    with pytest.raises(
        LearnerError, match="loss is one of cross_entropy, mse, binary_cross_entropy, not 'hinge'"
    ):
        get_loss("hinge")


def test_probabilities_are_between_0_and_1():
    y = torch.tensor([0.0, 1.0, 1.5])
    x = torch.randn(3, 2)
    task = tlx.Task(x, y, x, y, name="odd")
    learner = tlx.MAML(tlx.models.mlp(2, 3, 1, seed=0), loss="binary_cross_entropy")
    with pytest.raises(TaskError, match="task 'odd' has targets outside 0 … 1"):
        learner.check(task)
    good = task.replace(support_y=y.clamp(max=1), query_y=y.clamp(max=1))
    with pytest.raises(TaskError, match="task 'odd' has targets outside 0 … 1"):
        tlx.linearize(learner, [good, task]).losses()


@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("outputs", [(), (3,)])
def test_targets_of_another_shape_than_the_outputs_are_named(name, outputs):
    task = tlx.Task(
        torch.rand(5, 3), torch.rand(5, *outputs), torch.rand(4, 3), torch.rand(4, *outputs), "odd"
    )
    learner = tlx.MAML(tlx.models.mlp(3, 4, 2, seed=0), 0.1, loss=name)
    shapes = f"outputs are of shape (5, 2), and the targets of shape {(5, *outputs)}"
    for call in (tlx.linearize, tlx.evaluate):
        with pytest.raises(LearnerError, match=f"task 'odd': the model's {re.escape(shapes)}"):
            call(learner, tlx.TaskSet([task]))


@pytest.mark.parametrize(
    "call", [tlx.evaluate, partial(tlx.meta_train, steps=2, batch_size=2, progress=False)]
)
@pytest.mark.parametrize("engine", [False, True])
def test_so_are_those_of_a_later_task(call, engine):
    def of(outputs, name):
        return tlx.Task(
            torch.rand(5, 3), torch.rand(5, outputs), torch.rand(4, 3), torch.rand(4, outputs), name
        )

    params = torch.rand(3, 2, requires_grad=True)
    learner = tlx.FunctionLearner(lambda params, x, y, q: q @ params, params, loss="mse")
    n = 4
    if engine:  # which adapts to the support set first
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GroupNorm(2, 4), torch.nn.Linear(4, 2))
        learner, n = tlx.MAML(net, 0.1, loss="mse"), 5
    shapes = f"outputs are of shape ({n}, 2), and the targets of shape ({n}, 3)"
    with pytest.raises(LearnerError, match=f"task 'odd': the model's {re.escape(shapes)}"):
        call(learner, tlx.TaskSet([of(2, "even"), of(3, "odd")]))
