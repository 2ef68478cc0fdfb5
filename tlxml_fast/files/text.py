"""Text and JSON, written at once and read with errors that name the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, TlxError
from . import disk
from .whole import writing


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file at once."""
    data = text.encode()
    with writing(path) as (_, descriptor):
        disk.write(descriptor, data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file at once."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, or say in one sentence what is wrong with it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error


@contextmanager
def understanding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors that a header of unexpected form causes inside become a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        what = str(error) if isinstance(error, TlxError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} cannot be understood: {what}") from error
