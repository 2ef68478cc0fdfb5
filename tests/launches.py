"""Counting what a call would launch on a device: our kernels, and torch's operations between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from triton.runtime.interpreter import GridExecutor

EMPTY = {"empty", "empty_like", "new_empty", "new_empty_strided"}


class _Between(TorchFunctionMode):
    """Torch's operations that write memory: in place, or into a storage of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.inside = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        if not self.inside and isinstance(result, torch.Tensor) and name not in EMPTY:
            given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            in_place = name.endswith("_") and not name.endswith("__")
            if in_place or result.untyped_storage().data_ptr() not in given:
                self.count[name] += 1
        return result


def launches(call: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """What `call` launches where Triton is interpreted: kernels, and torch's operations, by name."""
    kernels: Counter[str] = Counter()
    run = GridExecutor.__call__
    with _Between() as between:

        def counted(executor, *args, **kwargs):
            kernels[executor.fn.__name__] += 1
            between.inside = True
            try:
                return run(executor, *args, **kwargs)
            finally:
                between.inside = False

        with patch.object(GridExecutor, "__call__", counted):
            call()
    return kernels, between.count
