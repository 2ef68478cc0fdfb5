"""Outer losses, their Hessians in the logits and the factors of those."""

from __future__ import annotations

import pytest
import torch
from oracle import near
from torch import Tensor

from tlxml_fast.errors import LearnerError
from tlxml_fast.losses import LOSSES, get_loss

SHAPES = [(1, 1), (1, 2), (4, 5), (3, 33)]  # n queries, C outputs


def draw(name: str, n: int, C: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(n + C)
    f = scale * torch.randn(n, C, generator=g, dtype=torch.float64)
    if name == "mse":
        return f, torch.randn(n, C, generator=g, dtype=torch.float64)
    return f, torch.randint(C, (n,), generator=g)


def hessian(name: str, f: Tensor, y: Tensor) -> Tensor:
    """By autograd, [n, C, n, C]."""
    return torch.autograd.functional.hessian(lambda f: get_loss(name)(f, y), f)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_values(name, shape):
    f, y = draw(name, *shape)
    want = (
        ((f - y) ** 2).mean(1) if name == "mse" else -(f.exp() / f.exp().sum(1, True))[range(len(y)), y].log()
    )
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
    with pytest.raises(LearnerError, match="loss is one of cross_entropy, mse, not 'hinge'"):
        get_loss("hinge")
