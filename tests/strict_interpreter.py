"""Triton's interpreter, nearer to a device. tests/conftest.py installs it where TRITON_INTERPRET=1.

Every launch then fails that reads or writes outside the tensors it was given, in which one program touches what
another writes, or whose 32-bit integers overflow. Products have the errors of their `input_precision`, numbers passed
as floats those of float32 unless the kernel declares float64, and memory that nobody wrote is NaN. What each launch
moves is counted: `moved()`.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.jit import _normalize_ty

SECTOR = 32  # bytes: the unit of traffic below the first-level cache


class Moved(NamedTuple):
    """What a launch moved, in bytes: on its way to the programs, and to memory under caches that hold all of it."""

    kernel: str
    loaded: int  # by every load
    stored: int
    sectors: int  # in sectors, each once a program
    memory: int  # in sectors, each once a launch; read before it is written, and written


class BadLaunch(AssertionError):
    """What a launch did that a device would not forgive."""


class Launch:
    """The accesses of a launch: checked against its tensors as they come, against each other at the end."""

    def __init__(self, kernel: str, tensors: list[torch.Tensor]) -> None:
        self.kernel, self.program = kernel, -1
        self.patched: set[str] = set()  # modules whose functions have found the interpreter's builtins
        self.loaded = self.stored = 0
        self.loads: list[tuple[int, np.ndarray]] = []  # program, addresses
        self.stores: list[tuple[int, np.ndarray]] = []
        spans = sorted([*_reserved, *((x.data_ptr(), x.data_ptr() + _extent(x)) for x in tensors)])
        merged = spans[:1]
        for start, end in spans[1:]:
            if start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self.starts = np.array([a for a, _ in merged], dtype=np.uint64)
        self.ends = np.array([b for _, b in merged], dtype=np.uint64)

    def access(self, pointers: interpreter.TensorHandle, mask: interpreter.TensorHandle, store: bool) -> None:
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        where, mask = np.broadcast_arrays(pointers.data, mask.data.astype(bool))
        addresses = where[mask]
        if not addresses.size:
            return
        span = np.searchsorted(self.starts, addresses, side="right").astype(np.int64) - 1
        outside = (span < 0) | (addresses + np.uint64(size) > self.ends[np.maximum(span, 0)])
        if outside.any():
            verb = "writes" if store else "reads"
            raise BadLaunch(f"{self.kernel} {verb} {outside.sum()} numbers outside its tensors")
        moved = size * addresses.size
        addresses = _unique(addresses)
        if store:
            if size * addresses.size < moved:
                raise BadLaunch(f"{self.kernel} writes the same number twice in one store")
            self.stored += moved
            self.stores.append((self.program, addresses))
        else:
            self.loaded += moved
            written = [a for program, a in self.stores if program == self.program]
            if written:
                addresses = addresses[~np.isin(addresses, np.concatenate(written))]
            self.loads.append((self.program, addresses))

    def end(self) -> Moved:
        written, writers = _pairs(self.stores)
        clash = np.flatnonzero(written[1:] == written[:-1])
        if clash.size:
            raise BadLaunch(
                f"{self.kernel}: programs {writers[clash[0]]} and {writers[clash[0] + 1]} write the same"
            )
        read, readers = _pairs(self.loads)
        if written.size and read.size:
            at = np.minimum(np.searchsorted(written, read), written.size - 1)
            clash = np.flatnonzero((written[at] == read) & (writers[at] != readers))
            if clash.size:
                first = clash[0]
                raise BadLaunch(
                    f"{self.kernel}: program {readers[first]} reads what program {writers[at[first]]} writes"
                )
        both = [_sectors(read, readers), _sectors(written, writers)]
        return Moved(
            self.kernel,
            self.loaded,
            self.stored,
            SECTOR * sum(len(np.unique(pairs, axis=0)) for pairs in both),
            SECTOR * sum(len(np.unique(pairs[:, 0])) for pairs in both),
        )


def _extent(x: torch.Tensor) -> int:
    if not x.numel():
        return 0
    return x.itemsize * (1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)))


def _unique(x: np.ndarray) -> np.ndarray:
    """np.unique, which hashes, and of addresses takes ten times as long."""
    x = np.sort(x)
    return x[np.concatenate(([True], x[1:] != x[:-1]))]


def _pairs(accesses: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Addresses and programs, each pair once, by address."""
    if not accesses:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    addresses = np.concatenate([a for _, a in accesses])
    programs = np.concatenate([np.full(a.size, p) for p, a in accesses])
    order = np.lexsort((programs, addresses))
    addresses, programs = addresses[order], programs[order]
    first = np.ones(addresses.size, dtype=bool)
    first[1:] = (addresses[1:] != addresses[:-1]) | (programs[1:] != programs[:-1])
    return addresses[first], programs[first]


def _sectors(addresses: np.ndarray, programs: np.ndarray) -> np.ndarray:
    return np.stack([addresses // np.uint64(SECTOR), programs.astype(np.uint64)], 1)


_current: Launch | None = None
_recorded: list[Moved] | None = None


@contextmanager
def moved() -> Iterator[list[Moved]]:
    """The launches in its body, in order."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


_reserved: list[tuple[int, int]] = []


@contextmanager
def reserved(numbers: int) -> Iterator[tuple[tl.tensor, np.ndarray]]:
    """Float32 numbers beyond the reach of 32 bits: a pointer for a kernel, and an array over the same memory.

    Only pages that are written take memory, so that offsets above 2^31 can be tested. Numbers are zero at first.
    """
    no_reserve = 0x4000  # Linux's MAP_NORESERVE, which Python's mmap names only in later versions
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    memory = np.frombuffer(mmap.mmap(-1, 4 * numbers, flags=flags), dtype=np.float32)
    address = memory.ctypes.data
    _reserved.append((address, address + 4 * numbers))
    try:
        yield pointer_to(memory), memory
    finally:
        _reserved.remove((address, address + 4 * numbers))


def pointer_to(memory: np.ndarray) -> tl.tensor:
    """A kernel's pointer to float32 numbers."""
    type_, address = tl.pointer_type(tl.float32), np.array([memory.ctypes.data], dtype=np.uint64)
    return tl.tensor(interpreter.TensorHandle(address, type_), type_)


# ---- what is put in the place of the interpreter's own ------------------------------------------------


def _float_argument(annotation: object, value: object) -> object:
    """A number as a device gets it: float32 unless the kernel says otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    declared = "" if annotation is None else _normalize_ty(annotation)
    if isinstance(value, int) and not declared.startswith("fp"):
        return value
    dtype, type_ = (np.float64, tl.float64) if declared == "fp64" else (np.float32, tl.float32)
    return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=dtype), type_), type_)


def _split(x: np.ndarray, drop: int = 13) -> np.ndarray:
    """float32 without the lowest bits, of which TF32 has 13 fewer: what a tensor core reads of it."""
    return (np.ascontiguousarray(x).view(np.uint32) >> drop << drop).view(np.float32)


def _dot(self, a, b, d, input_precision, max_num_imprecise_acc):  # the interpreter's signature
    if a.dtype.primitive_bitwidth == 8:
        return _plain_dot(self, a, b, d, input_precision, max_num_imprecise_acc)
    x, y = (_widened(h) for h in (a, b))
    precision = str(input_precision).rpartition(".")[2].lower() if a.dtype == tl.float32 else "ieee"
    out = d.data.dtype

    def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.matmul(p, q, dtype=out)

    if precision == "ieee":
        result = product(x, y)
    elif precision == "tf32":
        result = product(_split(x), _split(y))
    elif precision == "tf32x3":
        high, low = (_split(x), _split(y)), (_split(x - _split(x)), _split(y - _split(y)))
        result = product(low[0], high[1]) + product(high[0], low[1]) + product(high[0], high[1])
    else:
        raise BadLaunch(f"no emulation of input_precision {precision}")
    return interpreter.TensorHandle((result + d.data).astype(out), d.dtype.scalar)


def _widened(h: interpreter.TensorHandle) -> np.ndarray:
    """bfloat16 comes as the integers of its bits."""
    return (h.data.astype(np.uint32) << 16).view(np.float32) if h.dtype.scalar == tl.bfloat16 else h.data


def _load(self, ptrs, mask, other, *rest, **options):
    if _current is not None:
        _current.access(ptrs, mask, store=False)
    return _plain_load(self, ptrs, mask, other, *rest, **options)


def _store(self, ptrs, value, mask, *rest, **options):
    if _current is not None:
        _current.access(ptrs, mask, store=True)
    return _plain_store(self, ptrs, value, mask, *rest, **options)


def _set_grid_idx(self, x, y, z):
    if _current is not None:
        _current.program += 1
    return _plain_set_grid_idx(self, x, y, z)


def _patch_lang(fn):
    """Once a launch for each module: Triton searches all builtins again at every call of a kernel's function."""
    if _current is not None:
        if fn.__module__ in _current.patched:
            return None  # only launches undo what they patched
        _current.patched.add(fn.__module__)
    return _plain_patch_lang(fn)


def _call(self, *args, **options):
    global _current
    annotations = self.fn.__annotations__
    args = [
        value if name in self.constexprs else _float_argument(annotations.get(name), value)
        for name, value in zip(self.arg_names, args, strict=False)
    ]
    given = [*args, *(value for name, value in options.items() if name in self.arg_names)]
    _current = Launch(self.fn.__name__, [x for x in given if isinstance(x, torch.Tensor)])
    try:
        result = _plain_call(self, *args, **options)
        done = _current.end()
    finally:
        _current = None
    if _recorded is not None:
        _recorded.append(done)
    return result


_Builder = interpreter.InterpreterBuilder
_plain_dot, _plain_call = _Builder.create_dot, interpreter.GridExecutor.__call__
_plain_load, _plain_store = _Builder.create_masked_load, _Builder.create_masked_store
_plain_set_grid_idx, _plain_patch_lang = _Builder.set_grid_idx, interpreter._patch_lang


def install() -> None:
    """Replace the interpreter's loads, stores, products, patches and launches. Once, before a kernel runs."""
    _Builder.create_dot, interpreter.GridExecutor.__call__ = _dot, _call
    _Builder.create_masked_load, _Builder.create_masked_store = _load, _store
    _Builder.set_grid_idx, interpreter._patch_lang = _set_grid_idx, _patch_lang
    interpreter.interpreter_builder.options = dataclasses.replace(
        interpreter.interpreter_builder.options, debug=True, sanitize_overflow=True
    )
    # the mode's one effect on the CPU that matters here: torch.empty is filled with NaN
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
