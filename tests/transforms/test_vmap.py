"""Batches of calls, and derivatives of them in either nesting."""

from __future__ import annotations

import torch
from table import every_case
from torch.func import grad, hessian, jvp, vmap


def batch(case):
    return [torch.stack([x, 0.5 * x, x.flip(0)]) for x in case.inputs]


@every_case
def test_vmap_is_a_loop(case):
    many = batch(case)
    looped = torch.stack([case.reference(*(x[i] for x in many)) for i in range(3)])
    torch.testing.assert_close(vmap(case.function)(*many), looped)


@every_case
def test_vmap_of_grad_and_grad_of_vmap(case):
    many, every = batch(case), tuple(range(len(case.inputs)))
    each = vmap(grad(case.scalar, every))(*many)
    together = grad(lambda *inputs: vmap(case.scalar)(*inputs).sum(), every)(*many)
    torch.testing.assert_close(each, together)
    looped = [grad(case.scalar_reference, every)(*(x[i] for x in many)) for i in range(3)]
    torch.testing.assert_close(each, tuple(torch.stack(parts) for parts in zip(*looped, strict=True)))


@every_case
def test_vmap_of_jvp(case):
    tangents = [torch.stack([t, -2 * t]) for t in case.tangents()]
    many = vmap(lambda *t: jvp(case.function, case.inputs, t)[1])(*tangents)
    one = jvp(case.reference, case.inputs, case.tangents())[1]
    torch.testing.assert_close(many, torch.stack([one, -2 * one]))


@every_case
def test_hessian(case):
    """In the first numbers of the first input, the others fixed."""
    first, *rest = case.inputs
    few = first.flatten()[:4]

    def of_few(function):
        def value(numbers):
            return function(torch.cat([numbers, first.flatten()[4:]]).view(first.shape), *rest)

        return hessian(value)(few)

    torch.testing.assert_close(of_few(case.scalar), of_few(case.scalar_reference))
