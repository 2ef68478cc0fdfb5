"""The one way the package times a choice it has to make."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """How long `run` takes the second time; the first chooses how to run, and warms up."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
