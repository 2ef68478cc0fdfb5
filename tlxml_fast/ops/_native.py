"""The compiled core, if it is there: its import, its threads, and a test of the SIMD level it dispatches.

Importing this never fails. Without the core ops run their pure-torch references; `why_not_native()` says why.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType

import torch


def _load() -> tuple[ModuleType | None, str | None]:
    try:
        from tlxml_fast import _core
    except ModuleNotFoundError:
        return None, "the compiled core is not built; `pip install -e .` in the source tree builds it"
    except ImportError as error:
        return None, f"the compiled core cannot be loaded: {error}"
    return _core, None


core, _why_not = _load()


def native_available() -> bool:
    """Whether the compiled core is loaded."""
    return core is not None


def why_not_native() -> str | None:
    """Why the compiled core is not loaded, in one sentence; None if it is."""
    return _why_not


def kernel(op: str, dtype: torch.dtype):
    """The core's function for `op` at `dtype`, or None if this build of the core has none."""
    return getattr(core, f"{op}_{'f64' if dtype == torch.float64 else 'f32'}", None)


def _hook_threads() -> str:
    """Hand torch's thread pool to the core; says what runs the core's loops."""
    if core is None:
        return "no core"
    if core.build["sanitizer"]:
        return "std::thread (sanitizer build)"
    try:  # a look-up in torch._C reaches the libraries it is linked to, wherever they are installed
        address = ctypes.cast(ctypes.CDLL(torch._C.__file__).torch_parallel_for, ctypes.c_void_p).value
    except (AttributeError, OSError):
        return "serial: this torch has no torch_parallel_for (torch 2.10 and later do)"
    core.set_parallel_for(address)
    return "torch's thread pool"


threading: str = _hook_threads()


@cache
def self_test() -> tuple[bool, str]:
    """Run the core's exp and tanh at the dispatched level over their whole range, against libm in float64.

    Returns whether they are within 2 and 4 units in the last place, and a sentence with the figures.
    """
    if core is None:
        return False, "not run: " + str(_why_not)
    ranges = {
        ("exp", torch.float32): (-87.0, 88.5),
        ("exp", torch.float64): (-708.0, 709.5),
        ("tanh", torch.float32): (-11.0, 11.0),
        ("tanh", torch.float64): (-22.0, 22.0),
    }
    figures = {
        which: _ulps(*which, torch.linspace(*ends, 20_011, dtype=which[1])) for which, ends in ranges.items()
    }
    said = [
        f"{op} within "
        + ", ".join(f"{str(t).removeprefix('torch.')} {u:.2f}" for (o, t), u in figures.items() if o == op)
        for op in ("exp", "tanh")
    ]
    passed = all(ulps <= (2 if op == "exp" else 4) for (op, _), ulps in figures.items())  # NaN compares false
    return passed, " ulp, ".join(said) + " ulp"


def _ulps(op: str, dtype: torch.dtype, x: torch.Tensor) -> float:
    """The largest error of an elementwise function of the core, in units in the last place."""
    got, want = torch.full_like(x, torch.nan), getattr(torch, op)(x.double())
    kernel(op, dtype)(x.data_ptr(), got.data_ptr(), x.numel())
    size = want.to(dtype).abs()
    ulp = size.nextafter(torch.tensor(torch.inf, dtype=dtype)).double() - size.double()
    return ((got.double() - want).abs() / ulp).max().item()
