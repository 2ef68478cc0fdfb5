"""What does not fit in memory is refused before any work is done."""

from __future__ import annotations

import torch

from .. import memory
from ..errors import CurvatureError
from ..linearize.chunk import free_memory


def require_memory(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Raise, naming `what`, unless `needed` more bytes can be had where the work is done.

    Within a limit on memory, if there is one. TlxError on the CPU, CurvatureError on a device.
    """
    device = torch.device(device)
    if device.type != "cuda":
        memory.require(needed, what)
        return
    free = free_memory(device)
    if needed > free:
        raise CurvatureError(
            f"{what} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free on {device}"
        )
