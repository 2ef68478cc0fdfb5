"""What is wrong with a file of a store, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, StoreError

REMEDY = "delete it, and it is computed again"
FOREIGN = "was made with another context, or comes from another store"


@contextmanager
def reading(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Errors of a file that cannot be read become a StoreError, with the remedy where the file is damaged."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {_reason(error)}") from error
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise StoreError(f"{path} cannot be read: {_reason(error.__cause__)}") from error
        raise StoreError(f"{error}; {remedy}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system become a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {_reason(error)}; "
            "what was stored before is unchanged, and the same run goes on from it"
        ) from error
    except CheckpointError as error:
        raise StoreError(str(error)) from error


def shard_problem(
    header: Mapping[str, Any], kind: str, index: int, context: str, ids: Sequence[str]
) -> str | None:
    """What tells a shard from the one asked for; fewer or more tasks than `ids` do not."""
    if header["context"] != context:
        return FOREIGN
    if (header["kind"], header["index"]) != (kind, index):
        return f"is shard {header['index']} of {header['kind']!r}, out of its place"
    for i, (held, wanted) in enumerate(zip(header["tasks"], ids, strict=False)):
        if held != wanted:
            return f"is of other tasks: its task {i} is {held[:8]} where {wanted[:8]} belongs"
    return None


def whole_problem(header: Mapping[str, Any], name: str, context: str) -> str | None:
    """What tells a result from the one asked for, besides its key."""
    if header["context"] != context:
        return FOREIGN
    if header["name"] != name:
        return f"is the result {header['name']!r}, out of its place"
    return None


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
