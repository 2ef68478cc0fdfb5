"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from .errors import CheckpointError, TlxError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, synced and renamed over it on success, removed on any failure.

    Directories on the way are made.
    """
    final = Path(path)
    if final.is_dir():
        raise CheckpointError(f"{final} is a directory, and a file is to be written there")
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; a result has the permissions any new file would have
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        os.replace(part, final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file at once."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file at once."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, or say in one sentence what is wrong with it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None


def write_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors with a JSON header, as one safetensors file of the given kind."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, t in tensors.items():
        t = t.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if t.untyped_storage().data_ptr() in seen:  # safetensors refuses shared memory, as of tied weights
            t = t.clone()
        seen.add(t.untyped_storage().data_ptr())
        plain[name] = t
    text = json.dumps(header, ensure_ascii=False)
    metadata = {"tlxml_fast": kind, "header": text, "sha256": _checksum(text, plain)}
    with replacing(path) as part:
        save_file(plain, part, metadata)


def read_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header that `write_tensors` wrote. Reading executes no code.

    Raises CheckpointError if the file is absent, damaged or of another kind.
    """
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("tlxml_fast") != kind:
                raise CheckpointError(f"{path} is not a tlxml_fast {kind} file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata.get("header", "")
        if metadata.get("sha256") != _checksum(text, tensors):
            raise CheckpointError(f"{path} is damaged: its content does not match its checksum")
        return tensors, json.loads(text)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read: {error}") from None


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


def _checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name, t in sorted(tensors.items()):
        digest.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        # bytes, because numpy knows no bfloat16; flat first, because a view as bytes needs a dimension
        digest.update(t.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
