"""torch.compile sees every op as one graph, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from table import every_case


@pytest.fixture(autouse=True)
def _afresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@every_case
def test_fullgraph(case):
    compiled = torch.compile(case.function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*case.inputs), case.reference(*case.inputs))


@every_case
def test_fullgraph_backwards(case):
    compiled = torch.compile(case.scalar, fullgraph=True, backend="aot_eager")
    found = []
    for function in (compiled, case.scalar_reference):
        inputs = [x.clone().requires_grad_() for x in case.inputs]
        found.append(torch.autograd.grad(function(*inputs), inputs, materialize_grads=True))
    torch.testing.assert_close(*found)
