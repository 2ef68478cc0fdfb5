"""Forward mode, alone and over reverse mode."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as fwAD
from table import every_case
from torch.func import grad, jvp


@every_case
def test_func_jvp(case):
    found, expected = (jvp(f, case.inputs, case.tangents()) for f in (case.function, case.reference))
    torch.testing.assert_close(found, expected)


@every_case
def test_dual_numbers(case):
    with fwAD.dual_level():
        duals = [fwAD.make_dual(x, t) for x, t in zip(case.inputs, case.tangents(), strict=True)]
        tangent = fwAD.unpack_dual(case.function(*duals)).tangent
    # torch.func's forward mode nests in itself, dual levels in nothing
    torch.testing.assert_close(tangent, jvp(case.reference, case.inputs, case.tangents())[1])


@every_case
def test_forward_over_reverse(case):
    every = tuple(range(len(case.inputs)))
    found = (
        jvp(grad(f, every), case.inputs, case.tangents())[1] for f in (case.scalar, case.scalar_reference)
    )
    torch.testing.assert_close(*found)
