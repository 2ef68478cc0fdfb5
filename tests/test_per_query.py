"""Cotangents of one query each: through that query alone where nothing couples them; the rows of G that they make."""

from __future__ import annotations

import pytest
import torch
from oracle import near
from torch import nn

import tlxml_fast as tlx
from tlxml_fast.ops import native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="no core")
EXACT = 1e-12


def conv(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )


NETS = {
    "group norm": ((2, 7, 5), lambda: conv(nn.GroupNorm(2, 4))),
    "batch norm": ((2, 7, 5), lambda: conv(nn.BatchNorm2d(4))),
    "mlp": ((6,), lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))),
    "layer norm": ((6,), lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3))),
}
LEARNERS = {
    "maml": lambda net: tlx.MAML(net, 0.2, 2),
    "learned rates": lambda net: tlx.MAML(net, 0.2, 2, learn_inner_lr=True),
    "protonet": lambda net: tlx.ProtoNet(net),
    "protonet, apart": lambda net: tlx.ProtoNet(net, "cosine", joint_forward=False, scale=2.0),
}


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("net", NETS)
def test_each_query_alone(net, kind):
    features, make = NETS[net]
    torch.manual_seed(0)
    y = torch.tensor([0, 1, 2, 0, 1])
    tasks = [
        tlx.Task(torch.randn(5, *features).double(), y, torch.randn(4, *features).double(), y[:4])
        for _ in range(3)
    ]
    learner = LEARNERS[kind](make().double())
    native, reference = (tlx.linearize(learner, tasks, backend) for backend in ("native", "reference"))
    near(native.per_query_gradients(), reference.per_query_gradients(), EXACT)
    rows = torch.cat([native.gn_rows(block).flatten(0, 1) for block in native.blocks])
    near(rows.mT @ rows / 3, native.gnvp(torch.eye(native.q).double()), EXACT)
    coupled = net == "batch norm" or (net == "mlp" and kind == "maml")  # that kernel skips queries by itself
    assert native.passes.separable != coupled
