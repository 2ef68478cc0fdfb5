"""Tensors with a JSON header in one safetensors file, with a SHA-256 over everything in it.

The format is eight bytes with the length of a JSON index, the index, and the tensors' bytes. It is written here,
piece by piece, because safetensors' `save` makes a copy of all tensors first; it is read here because the
checksum is computed on the way.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import disk
from .pickled import is_pickle
from .whole import writing

CHUNK = 4 << 20
LONGEST_INDEX = 100_000_000  # as safetensors has it
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors with a JSON header, as one safetensors file of the given kind.

    Contiguous tensors on the CPU are written from where they lie, without a copy.
    """
    plain = {n: t.detach().cpu().resolve_conj().resolve_neg().contiguous() for n, t in tensors.items()}
    for name, t in plain.items():
        if t.dtype not in NAMES:
            raise CheckpointError(f"{path}: {name!r} is of {t.dtype}, which safetensors files cannot hold")
    # the widest dtype first, so that every tensor is aligned
    plain = dict(sorted(plain.items(), key=lambda item: (-item[1].itemsize, item[0])))
    text = json.dumps(header, ensure_ascii=False)
    sha256 = _checksum(text, {n: (t.dtype, list(t.shape), _pieces(_bytes(t))) for n, t in plain.items()})
    index: dict[str, Any] = {"__metadata__": {"tlxml_fast": kind, "header": text, "sha256": sha256}}
    end = 0
    for name, t in plain.items():
        begin, end = end, end + t.nbytes
        index[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    start = json.dumps(index, ensure_ascii=False).encode()
    start += b" " * (-len(start) % 8)
    with writing(path) as (_, descriptor):
        disk.write(descriptor, len(start).to_bytes(8, "little") + start)
        for t in plain.values():
            for piece in _pieces(_bytes(t)):
                disk.write(descriptor, piece)


def read_tensors(
    path: str | os.PathLike[str], kind: str, mapped: bool = False, verified: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header that `write_tensors` wrote. Reading executes no code.

    mapped    the tensors lie in the file, mapped copy-on-write, and take memory as they are touched; the
              checksum is computed over `CHUNK` bytes at a time
    verified  the checksum was right before and is not computed again; only for mapped tensors

    Raises CheckpointError if the file is absent, damaged or of another kind.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            metadata, entries = _index(descriptor)
            if metadata.get("tlxml_fast") != kind:
                raise CheckpointError(f"{path} is not a tlxml_fast {kind} file")
            tensors = _mapped(descriptor, entries) if mapped else {n: e.empty() for n, e in entries.items()}
            if not (mapped and verified):
                text = metadata["header"]
                into = {n: None if mapped else _bytes(t) for n, t in tensors.items()}
                read = {n: (e.dtype, e.shape, e.read(descriptor, into[n])) for n, e in entries.items()}
                if metadata["sha256"] != _checksum(text, read):
                    raise CheckpointError(f"{path} is damaged: its content does not match its checksum")
            return tensors, json.loads(metadata["header"])
        finally:
            os.close(descriptor)
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: there is no {error} in its index") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if is_pickle(path):
            raise CheckpointError(
                f"{path} is a pickle, as torch.save writes, not a tlxml_fast {kind} file"
            ) from None
        raise CheckpointError(f"{path} cannot be read: {error}") from error


class _Entry(NamedTuple):
    """Where a tensor lies in a file."""

    dtype: torch.dtype
    shape: list[int]
    begin: int
    end: int

    def empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype)

    def read(self, descriptor: int, into: memoryview | None) -> Iterator[memoryview]:
        """The bytes, in pieces, read into the memory given, or all into the same piece of memory."""
        size = self.end - self.begin
        scratch = memoryview(bytearray(min(size, CHUNK) if into is None else 0))
        for start in range(0, size, CHUNK):
            count = min(CHUNK, size - start)
            piece = scratch[:count] if into is None else into[start : start + count]
            if _read(descriptor, piece, self.begin + start) < count:
                raise ValueError("it ends too early")
            yield piece


def _index(descriptor: int) -> tuple[dict[str, str], dict[str, _Entry]]:
    """The metadata, and where each tensor lies; ValueError unless the tensors fill the file exactly."""
    size = os.fstat(descriptor).st_size
    length = memoryview(bytearray(8))
    if _read(descriptor, length, 0) < 8:
        raise ValueError("it ends too early")
    first = 8 + int.from_bytes(length, "little")
    if first > min(size, LONGEST_INDEX):
        raise ValueError("its index would be longer than the file")
    text = bytearray(first - 8)
    _read(descriptor, memoryview(text), 8)
    index = json.loads(text.decode())
    metadata = index.pop("__metadata__", {})
    entries = {}
    for name, entry in index.items():
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if min([begin, *shape]) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name!r} is not of the size of its shape")
        entries[name] = _Entry(dtype, shape, first + begin, first + end)
    reached = first
    for entry in sorted(entries.values(), key=lambda e: (e.begin, e.end)):
        if entry.begin != reached:
            raise ValueError("its tensors do not follow each other")
        reached = entry.end
    if reached != size:
        raise ValueError(f"it has {size:,} bytes, and its index tells of {reached:,}")
    return metadata, entries


def _mapped(descriptor: int, entries: Mapping[str, _Entry]) -> dict[str, Tensor]:
    # copy-on-write, because torch's tensors can be written to: the file never changes
    memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    return {
        name: torch.frombuffer(memory, dtype=e.dtype, count=math.prod(e.shape), offset=e.begin).view(e.shape)
        if e.end > e.begin
        else e.empty()
        for name, e in entries.items()
    }


def _read(descriptor: int, into: memoryview, offset: int) -> int:
    """How many bytes were read: all that are asked for, or those that there are."""
    done = 0
    while done < len(into) and (count := os.preadv(descriptor, [into[done:]], offset + done)):
        done += count
    return done


def _bytes(t: Tensor) -> memoryview:
    # flat first, because a view as bytes needs a dimension; bytes, because numpy knows no bfloat16
    return memoryview(t.reshape(-1).view(torch.uint8).numpy())


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def _checksum(header: str, content: Mapping[str, tuple[torch.dtype, list[int], Iterable[memoryview]]]) -> str:
    """SHA-256 of the header and of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name, (dtype, shape, pieces) in sorted(content.items()):
        digest.update(json.dumps([name, str(dtype), shape]).encode())
        for piece in pieces:
            digest.update(piece)
    return digest.hexdigest()
