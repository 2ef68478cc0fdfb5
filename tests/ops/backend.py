"""The compiled backend that CPU tensors run on in this process: the core, or Triton under its interpreter."""

from __future__ import annotations

import pytest
import torch

from tlxml_fast.ops._dispatch import backend_of, why_not

COMPILED = backend_of(torch.device("cpu"))
WHY_NOT = why_not(COMPILED)

needs_compiled = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
needs_native = pytest.mark.skipif(
    COMPILED != "native" or WHY_NOT is not None, reason="no core, or Triton runs on the CPU in its place"
)
BACKENDS = ["reference", pytest.param(COMPILED, marks=needs_compiled)]
