"""How much of the work a device takes at once: so many tasks times so many vectors, by its free memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from .. import memory
from ..errors import FallbackWarning, TlxError

# Vectors that share a pass over the tasks' activations, and tasks beyond which a device gains nothing.
MOST_VECTORS, MOST_TASKS = 32, 1024
# Of the free memory: the rest is for what torch's allocator cannot join, and for the results.
SHARE = 0.6


@dataclass
class Chunk:
    """Tasks and vectors at once; halved when memory runs out all the same."""

    tasks: int
    vectors: int
    why: str

    @classmethod
    def of(cls, device: torch.device, bytes_a_vector: int, shared_bytes: int) -> Chunk:
        """The largest chunk that fits: a task takes `shared_bytes`, and `bytes_a_vector` for each vector."""
        free = memory.on_device()
        free = free_memory(device) if free is None else free
        budget = int(SHARE * free)
        vectors = max(1, min(MOST_VECTORS, (budget - shared_bytes) // max(1, bytes_a_vector)))
        tasks = max(1, min(MOST_TASKS, budget // max(1, shared_bytes + vectors * bytes_a_vector)))
        return cls(tasks, vectors, f"{free / 2**30:.3g} GiB free on {device}")

    def halve(self) -> None:
        """Half as many tasks, then half as many vectors; says so. TlxError where one of one does not fit."""
        if self.tasks == self.vectors == 1:
            raise TlxError(
                "the device's memory does not hold one task and one vector; use a smaller task shape"
            )
        before = str(self)
        if self.tasks > 1:
            self.tasks = -(-self.tasks // 2)
        else:
            self.vectors = -(-self.vectors // 2)
        self.why = f"out of memory at {before}"
        warnings.warn(f"{self.why}: going on with {self}", FallbackWarning, stacklevel=2)

    def __str__(self) -> str:
        return f"{self.tasks} tasks × {self.vectors} vectors"


def free_memory(device: torch.device) -> int:
    """Bytes that torch could allocate on a device, those it holds unused among them, or that a limit leaves there.

    A stand-in for a device has 1 GiB.
    """
    if device.type != "cuda":
        return 1 << 30
    allocated = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
    return free if memory.limit() is None else max(0, min(free, memory.limit() - allocated))
