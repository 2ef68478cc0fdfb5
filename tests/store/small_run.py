"""A run over a store that is small and whole: shards of two kinds, one with ragged rows, and a result of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlxml_fast.store import Store

CONTEXT = {"parameters": "c0ffee" * 8, "learner": {"learner": "maml", "inner_steps": 5}, "dtype": "float32"}
CHOICES = {"threads": 1, "simd": "x86-64-v3"}
Q = 5


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(count)]


def open_store(directory: Path, count: int = 10, shard_size: int | None = 4, **other: Any) -> Store:
    arguments = {"context": CONTEXT, "tasks": ids(count), "choices": CHOICES, "shard_size": shard_size}
    return Store.open(directory, **(arguments | other))


def gradient(task: str) -> Tensor:
    return torch.randn(1, Q, generator=_generator(task))


def rows(task: str) -> Tensor:
    """One to three of them."""
    return torch.randn(1 + int(task[0], 16) % 3, Q, dtype=torch.float64, generator=_generator(task))


def complete(store: Store, kind: str, index: int) -> Tensor:
    """The tensor of a shard: what is stored, and the rest computed and stored."""
    make = {"gradients": gradient, "rows": rows}[kind]
    shard = store.read(kind, index)
    held = shard.n if shard is not None else 0
    tasks = store.tasks[store.span(index)]
    if held == len(tasks):
        return shard[kind]
    new = [make(task) for task in tasks[held:]]
    tensor = torch.cat([shard[kind], *new] if shard is not None else new)
    counts = {"rows": [len(rows(task)) for task in tasks]} if kind == "rows" else None
    store.write(kind, index, {kind: tensor}, counts)
    return tensor


def small_run(directory: Path, count: int = 10) -> Tensor:
    """The sum of all rows' outer products, in index order, and the shards it comes from."""
    with open_store(directory, count) as store:
        key: Sequence[str] = store.tasks
        for index in range(len(store)):
            complete(store, "gradients", index)
        found = store.read_whole("factor", key)
        if found is not None:
            return found[0]["gram"]
        gram = torch.zeros(Q, Q, dtype=torch.float64)
        for index in range(len(store)):
            shard = complete(store, "rows", index)
            gram += shard.mT @ shard
        store.write_whole("factor", key, {"gram": gram}, {"tasks": count})
        return gram


def _generator(task: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(task[:8], 16))
