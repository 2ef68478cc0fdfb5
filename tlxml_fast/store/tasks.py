"""The ids of a store's tasks: a run has the same, their beginning, or a continuation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import StoreError
from ..files import read_tensors, write_tensors
from .checks import FOREIGN, reading, writing
from .layout import TASKS

KIND = "store tasks"


def read_tasks(root: Path, context: str) -> list[str]:
    """In order; none where none were written."""
    path = root / TASKS
    if not path.exists():
        return []
    with reading(path):
        tensors, header = read_tensors(path, KIND)
    if header.get("context") != context:
        raise StoreError(f"{path} {FOREIGN}")
    return json.loads(bytes(tensors["ids"].numpy()))


def settle_tasks(root: Path, context: str, tasks: Sequence[str], names: Sequence[str], write: bool) -> None:
    """Keep the longer of the store's list and this run's; StoreError with the first task in which they differ."""
    held = read_tasks(root, context)
    for i, (old, new, name) in enumerate(zip(held, tasks, names, strict=False)):
        if old != new:
            called = name if name == new else f"{name!r} ({new[:8]})"
            raise StoreError(
                f"{root} was made with other tasks: task {i} of this run is {called}, and of the store {old}; "
                "tasks can be added at the end"
            )
    if len(tasks) <= len(held):
        return
    if not write:
        raise StoreError(
            f"{root} knows {len(held)} of {len(tasks)} tasks: the process that holds its lock opens it first"
        )
    with writing(root / TASKS):  # a tensor, because there may be millions, and an index is for less
        ids = torch.frombuffer(bytearray(json.dumps(list(tasks)).encode()), dtype=torch.uint8)
        write_tensors(root / TASKS, KIND, {"ids": ids}, {"context": context})
