"""What the figures were measured on and with, without the names of machines, users or paths."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import Any

import torch

from ..ops import _native
from ..profiling import machine


def described() -> dict[str, Any]:
    """Processor, vector instructions, threads, system, versions; JSON."""
    core = _native.core
    return {
        **machine("cpu"),
        "simd": core.simd_level() if core else "no compiled core",
        "compiler": core.build["compiler"] if core else "none",
        "blas": _blas(),
        "distribution": _distribution(),
        "tlxml_fast": _version("tlxml_fast"),
        "curvlinops": _version("curvlinops-for-pytorch"),
    }


def sentence(about: dict[str, Any]) -> str:
    """The same to be read."""
    cores = "1 core" if about["cores"] == 1 else f"{about['cores']} cores"
    threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
    return (
        f"{about['processor']}, {cores}, {threads}, SIMD level {about['simd']}; {about['distribution']}, "
        f"{about['system']}; Python {about['python']}, torch {about['torch']} with {about['blas']}; "
        f"tlxml_fast {about['tlxml_fast']} built by {about['compiler']}, curvlinops {about['curvlinops']}"
    )


def _blas() -> str:
    """The library of torch's matrix products."""
    text = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", text)
    named = re.search(r"BLAS_INFO=(\w+)", text)
    return f"MKL {mkl[1]}" if mkl else named[1] if named else "a BLAS it does not name"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
