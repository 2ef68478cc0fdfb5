"""Reverse mode, once and twice, by autograd and by torch.func."""

from __future__ import annotations

import torch
from table import every_case
from torch.func import grad, jacrev, vjp


def all_of(case):
    return tuple(range(len(case.inputs)))


@every_case
def test_autograd_and_double_backward(case):
    found = []
    for function in (case.scalar, case.scalar_reference):
        inputs = [x.clone().requires_grad_() for x in case.inputs]
        first = torch.autograd.grad(function(*inputs), inputs, create_graph=True, materialize_grads=True)
        again = sum((g * t).sum() for g, t in zip(first, case.tangents(), strict=True))
        found.append((first, torch.autograd.grad(again, inputs, materialize_grads=True)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@every_case
def test_func_grad_and_vjp(case):
    expected = grad(case.scalar_reference, all_of(case))(*case.inputs)
    torch.testing.assert_close(grad(case.scalar, all_of(case))(*case.inputs), expected)
    out, pull = vjp(case.function, *case.inputs)
    torch.testing.assert_close(pull(out), vjp(case.reference, *case.inputs)[1](out))


@every_case
def test_grad_of_grad(case):
    def along(function):
        def slope(*inputs):
            parts = grad(function, all_of(case))(*inputs)
            return sum((g * t).sum() for g, t in zip(parts, case.tangents(), strict=True))

        return grad(slope, all_of(case))(*case.inputs)

    torch.testing.assert_close(along(case.scalar), along(case.scalar_reference))


@every_case
def test_jacrev(case):
    found = (jacrev(f)(*case.inputs) for f in (case.function, case.reference))
    torch.testing.assert_close(*found)


@every_case
def test_a_derivative_in_one_input_alone(case):
    """Autograd must see each input, whichever of them a kernel's dispatch looks at."""
    for i in all_of(case):
        found = []
        for function in (case.scalar, case.scalar_reference):
            inputs = [x.clone().requires_grad_(i == j) for j, x in enumerate(case.inputs)]
            y = function(*inputs)
            found.append(torch.autograd.grad(y, inputs[i])[0] if y.requires_grad else None)
        if found[1] is not None:
            torch.testing.assert_close(*found)
        torch.testing.assert_close(*(grad(f, i)(*case.inputs) for f in (case.scalar, case.scalar_reference)))
