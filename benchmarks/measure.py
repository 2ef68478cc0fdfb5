"""Validate, then time: nothing is timed that did not give the right answer first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# In float64, where no ReLU and no pool can choose otherwise than the truth's.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: median, least and most of its runs; and its relative error in float64."""

    median: float
    least: float
    most: float
    runs: int
    error: float


def relative_error(got: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest entry."""
    return float((got.double() - truth).abs().max() / truth.abs().max())


def validate(contestants: Mapping[str, Callable[[], Tensor]], truth: Tensor) -> dict[str, float]:
    """The relative error of each in float64. Raises ValueError where one is wrong."""
    errors = {name: relative_error(run(), truth) for name, run in contestants.items()}
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise ValueError(f"{name} is wrong by {error:.1e} and is not timed")
    return errors


def contest(
    contestants: Mapping[str, Callable[[], Tensor]], errors: Mapping[str, float], rounds: int, seconds: float
) -> dict[str, Timing]:
    """Timed in turns, so that all meet the same machine; the first turn warms up and does not count.

    Each runs `rounds` times, but not again once it has taken `seconds`.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            if len(samples[name]) > 1 and sum(samples[name]) > seconds:
                continue
            start = time.perf_counter()
            run()
            samples[name].append(time.perf_counter() - start)
    counted = {name: s[1:] for name, s in samples.items()}
    return {
        name: Timing(statistics.median(s), min(s), max(s), len(s), errors[name])
        for name, s in counted.items()
    }


def vectors(count: int, like: Tensor, seed: int = 0) -> Tensor:
    """[count, q], normal, in the dtype of ω."""
    return torch.randn(count, len(like), generator=torch.Generator().manual_seed(seed)).to(like)
