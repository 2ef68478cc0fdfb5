"""What the quantities of a task depend on, besides the task: the context of a store, and the choices it makes."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from .. import memory
from ..learners import Learner
from ..linearize import Linearization
from ..ops import _native


def context(learner: Learner, lin: Linearization) -> dict[str, Any]:
    """JSON that two runs must agree on to share gradients and rows."""
    described = learner.describe()
    buffers = dict(learner.module.named_buffers()) if learner.norm == "running" else {}
    return {
        "learner": described,
        "module": repr(learner.module),
        "parameters": _hash({"ω": lin.omega, **buffers}),
        "dtype": str(lin.dtype),
        "device": lin.device.type,
        "backend": lin.report.backend,
        "torch": torch.__version__,
        "core": "none" if _native.core is None else str(_native.core.build["compiler"]),
    }


def choices() -> dict[str, Any]:
    """What this run would choose, and a run that goes on from it follows."""
    return {"threads": torch.get_num_threads(), "memory": memory.limit(), "SIMD level": simd_level()}


def possible() -> dict[str, list[Any]]:
    """Of the choices, those that this machine can follow in some ways only."""
    return {"SIMD level": [simd_level()]}


def simd_level() -> str:
    """What the kernels run at."""
    return "none" if _native.core is None else _native.core.simd_level()


def _hash(tensors: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, t in tensors.items():
        found.update(f"{name}{t.dtype}{tuple(t.shape)};".encode())
        found.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
