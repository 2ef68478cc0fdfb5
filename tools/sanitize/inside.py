"""What run.py runs with a sanitizer preloaded: the planted bug, or pytest, on a core that is not the installed one.

usage: inside.py CORE_DIR SANITIZER planted
       inside.py CORE_DIR SANITIZER pytest ARGS...
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import pytest
import torch


def load_core(directory: str, sanitizer: str) -> ModuleType:
    """The core in `directory` in the place of the installed one: an import finds it among the loaded modules."""
    spec = PathFinder.find_spec("tlxml_fast._core", [directory])
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    sys.modules[spec.name] = core

    from tlxml_fast.ops import _native

    assert _native.core is core
    assert core.build["sanitizer"] == sanitizer
    return core


# Kernels check nothing, so calling a correct one wrongly plants a bug. None does harm where it is not seen.


def read_past_the_end(core: ModuleType) -> None:
    x, out = torch.zeros(64), torch.zeros(65)
    core.exp_f32(x.data_ptr(), out.data_ptr(), 65)


def read_misaligned(core: ModuleType) -> None:
    x, out = torch.zeros(65, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    core.exp_f64(x.data_ptr() + 1, out.data_ptr(), 64)


def write_what_another_thread_reads(core: ModuleType) -> None:
    x = torch.zeros(65, dtype=torch.float64)  # the first out of a range is the last x of the range before
    core.exp_f64(x.data_ptr() + 8, x.data_ptr(), 64)


PLANTED = {
    "address": read_past_the_end,
    "undefined": read_misaligned,
    "thread": write_what_another_thread_reads,
}

if __name__ == "__main__":
    directory, sanitizer, what, *arguments = sys.argv[1:]
    core = load_core(directory, sanitizer)
    if what == "planted":
        sys.exit(PLANTED[sanitizer](core))
    # Reports go to file descriptor 2, which --capture=fd would swallow; -vv names the test that was running.
    sys.exit(pytest.main([*arguments, "-vv", "--capture=sys", "-m", "not slow", "-p", "no:cacheprovider"]))
