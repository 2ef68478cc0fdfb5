"""What the quantities of a task depend on, besides the task: the context of a store, and the choices it makes."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import memory
from ..kept import hashed
from ..learners import Learner
from ..linearize import Linearization
from ..linearize.chunk import free_memory
from ..ops import _native
from ..parallel import torch_threads
from ..task import Task


def context(learner: Learner, lin: Linearization) -> dict[str, Any]:
    """JSON that two runs must agree on to share gradients and rows; `lin` is of a `probe`.

    A module's code shows in its outputs for that, made by one thread, whose bits are always the same.
    """
    with torch_threads(1):
        outputs = lin.logits_block(slice(0, 1))
    return {
        "learner": learner.describe(),
        "module": repr(learner.module),
        "parameters": learner.fingerprint(),
        "dtype": str(lin.dtype),
        "device": lin.device.type,
        "backend": lin.report.backend,
        "torch": torch.__version__,
        "tlxml_fast": metadata.version("tlxml_fast"),
        "core": _core(),
        "results for noise": hashed(outputs),
    }


def choices(device: torch.device) -> dict[str, Any]:
    """What this run would choose, and a run that goes on from it follows."""
    return {
        "threads": torch.get_num_threads(),
        "memory": memory.limit(),
        "memory free on the device": free_memory(device) if device.type == "cuda" else None,
        "SIMD level": simd_level(),
    }


def possible() -> dict[str, list[Any]]:
    """Of the choices, those that this machine can follow in some ways only."""
    return {"SIMD level": [simd_level()]}


def simd_level() -> str:
    """What the kernels run at."""
    return "none" if _native.core is None else _native.core.simd_level()


def probe(task: Task) -> Task:
    """A task of noise in the shape of another, the same whatever that one holds."""
    g = torch.Generator().manual_seed(0)
    noise = {
        field: torch.randn(getattr(task, field).shape, generator=g) for field in ("support_x", "query_x")
    }
    return task.replace(
        **{field: x.to(getattr(task, field)) for field, x in noise.items()}, name="", group=""
    )


@cache
def _core() -> str:
    """The build of the compiled core, by its bytes."""
    return (
        "none"
        if _native.core is None
        else hashlib.sha256(Path(_native.core.__file__).read_bytes()).hexdigest()
    )
