"""Tensors in files, mapped into memory a window of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import safetensors
from torch import Tensor

from .errors import CheckpointError

WINDOW = 64 << 20


class TensorFiles(Sequence[Tensor]):
    """The rows of one tensor [rows, ...] in each of several safetensors files, in the order of the files.

    paths    the files
    name     of the tensor in each
    window   bytes, at most, of one item (at least one row)

    An item is a window of consecutive rows, mapped when it is asked for and read where it is touched: what is resident
    of the files is what is held of the items. Nothing is copied, and no checksum verified.

    Raises CheckpointError where a file cannot be read or has no such tensor.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], name: str, window: int = WINDOW):
        self.name = name
        self._windows: list[tuple[str, int, int]] = []
        for path in map(os.fspath, paths):
            tensor = self._mapped(path)
            if tensor.ndim == 0:
                raise CheckpointError(f"{name!r} in {path} is a single number: there are no rows to map")
            rows = max(window * len(tensor) // max(tensor.nbytes, 1), 1)
            starts = range(0, len(tensor), rows)
            self._windows += [(path, at, min(at + rows, len(tensor))) for at in starts]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Tensor:
        path, start, stop = self._windows[index]
        return self._mapped(path)[start:stop]

    def _mapped(self, path: str) -> Tensor:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return file.get_tensor(self.name)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{self.name!r} cannot be mapped from {path}: {error}") from None
