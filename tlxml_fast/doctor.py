"""What is installed, what was built, and what will run: the rows that `tlxml-fast doctor` prints."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

import torch

from tlxml_fast.memory import keep_freed_memory
from tlxml_fast.ops import OPS, _native, in_double
from tlxml_fast.ops._dispatch import Choice, backend_of, why_not

Row = tuple[str, str, str]  # section, what, status


def report() -> list[Row]:
    """The rows, section by section. Never raises: what is missing is a row that says so."""
    return [*_versions(), *_core(), *_simd(), *_threads(), *_backends(), *_ops()]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _versions() -> Iterator[Row]:
    yield "versions", "tlxml_fast", _version("tlxml_fast")
    yield "versions", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "versions", "torch", torch.__version__
    yield "versions", "triton", _version("triton")
    yield "versions", "CUDA of torch", torch.version.cuda or "none: a CPU build of torch"
    if torch.cuda.is_available():
        devices = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    else:
        devices = "none"
    yield "versions", "CUDA devices", devices


def _core() -> Iterator[Row]:
    yield "core", "compiled core", _native.why_not_native() or "loaded"
    if _native.core is None:
        return
    build = _native.core.build
    yield "core", "compiler", build["compiler"]
    yield "core", "flags", build["flags"]
    yield "core", "nvcc at build time", build["nvcc"]
    if build["sanitizer"]:
        yield "core", "sanitizer", build["sanitizer"]


def _simd() -> Iterator[Row]:
    if _native.core is None:
        return
    levels, dispatched = _native.core.build["simd_levels"], _native.core.simd_level()
    passed, figures = _native.self_test()
    for level in levels:  # from the highest down: the first that this processor has is the one dispatched
        if level == dispatched:
            status = f"dispatched, self-test {'passed' if passed else 'FAILED'}: {figures}"
        elif levels.index(level) < levels.index(dispatched):
            status = "compiled, not run: this processor lacks it"
        else:
            status = "compiled, not run: a higher level is dispatched"
        yield "simd", level, status


def _threads() -> Iterator[Row]:
    yield "threads", "torch.get_num_threads()", str(torch.get_num_threads())
    yield "threads", "loops of the core", _native.threading
    yield "threads", "freed memory", keep_freed_memory()


def _backends() -> Iterator[Row]:
    for device in ("cpu", "cuda"):
        backend = backend_of(torch.device(device))
        obstacle = why_not(backend)
        choice = Choice("reference", obstacle) if obstacle else Choice(backend, "its kernels are there")
        if device == "cuda" and not torch.cuda.is_available():
            choice = Choice("none", "torch sees no CUDA device")
        yield "backends", f"{device.upper()} tensors", f"{choice.backend}: {choice.why}"


def _ops() -> Iterator[Row]:
    """Each op and its implementations, the native one run once against the reference in float64."""
    for name, op in OPS.items():
        if not _native.native_available() or _native.kernel(name, torch.float32) is None:
            yield "ops", name, "reference"
            continue
        errors = []
        for dtype in (torch.float32, torch.float64):
            args, kwargs = op.example(dtype, torch.Generator().manual_seed(0))
            want = op.reference(*map(in_double, args), **kwargs)
            got = op.function(*args, **kwargs)
            pairs = zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (got, want)), strict=True)
            errors.append(max(((g - w).abs().max() / w.abs().max()).item() for g, w in pairs))
        good = errors[0] < 1e-4 and errors[1] < 1e-12
        figures = "relative error {:.0e} in float32, {:.0e} in float64".format(*errors)
        yield "ops", name, f"native, reference; native self-test {'passed' if good else 'FAILED'}: {figures}"
