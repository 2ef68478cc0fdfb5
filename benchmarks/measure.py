"""Validate, then time: nothing is timed that did not give the right answer first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..profiling import Peaks

Row = dict[str, Any]
Result = TypeVar("Result")

OURS = "tlxml_fast"

# In float64, where no ReLU and no pool can choose otherwise than the truth's.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Settings:
    """How a run measures.

    seed     of tasks
    rounds   times each contestant runs, after one that does not count
    seconds  none runs again once it has taken as long as this
    reached  what this machine's matrix products and copies reach
    device   where contestants run
    """

    seed: int
    rounds: int
    seconds: float
    reached: Peaks
    device: str = "cpu"

    def reached_now(self) -> Peaks:
        """The same, with the matrix product measured in the same breath as a case: a shared machine's clock moves."""
        return Peaks(sgemm(self.device), self.reached.bytes)


@dataclass(frozen=True)
class Goal:
    """A ratio: baseline's time over ours, the faster of several baselines."""

    baselines: tuple[str, ...]
    least: float
    aim: float

    def judged(self, timings: Mapping[str, Timing]) -> list[Row]:
        """What was reached, against the fastest of those that ran; nothing if none did."""
        there = {name: timings[name].median for name in self.baselines if name in timings}
        if not there:
            return []
        best = min(there, key=there.get)
        ratio = there[best] / timings[OURS].median
        return [{"against": best, "ratio": ratio, "least": self.least, "aim": self.aim}]


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: median, least and most of its runs; and its relative error in float64."""

    median: float
    least: float
    most: float
    runs: int
    error: float
    composed: str = ""
    """Of which measured parts the seconds are the sum, where it was not run whole."""

    @classmethod
    def of(cls, samples: list[float], error: float) -> Timing:
        """From the seconds of some runs."""
        return cls(statistics.median(samples), min(samples), max(samples), len(samples), error)


def relative_error(got: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest entry."""
    got, truth = got.cpu().double(), truth.cpu().double()
    return float((got - truth).abs().max() / truth.abs().max())


def validate(contestants: Mapping[str, Callable[[], Tensor]], truth: Tensor) -> dict[str, float]:
    """The relative error of each in float64. Raises ValueError where one is wrong."""
    errors = {name: relative_error(run(), truth) for name, run in contestants.items()}
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise ValueError(f"{name} is wrong by {error:.1e} and is not timed")
    return errors


def contest(
    contestants: Mapping[str, Callable[[], object]],
    errors: Mapping[str, float],
    rounds: int,
    seconds: float,
    warm_ups: int = 1,
) -> dict[str, Timing]:
    """Timed in turns, so that all meet the same machine; the first turn warms up and does not count.

    Each runs `rounds` times, but not again once it has taken `seconds`.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + warm_ups):
        for name, run in contestants.items():
            timed_runs = samples[name][warm_ups:]
            if timed_runs and sum(timed_runs) > seconds:
                continue
            samples[name].append(timed(run)[1])
    return {name: Timing.of(s[warm_ups:], errors[name]) for name, s in samples.items()}


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """What it gives, and the seconds it takes."""
    _finished()
    start = time.perf_counter()
    result = run()
    _finished()
    return result, time.perf_counter() - start


def _finished() -> None:
    """Wait for the device, if there is one: its work is queued, not done, when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def sgemm(device: str = "cpu") -> float:
    """FLOP/s of a large product of matrices, now."""
    a = torch.randn(2048, 2048, device=device)
    return 2 * 2048**3 / contest({"sgemm": lambda: a @ a}, {"sgemm": 0.0}, 5, 10.0)["sgemm"].median


def vectors(count: int, like: Tensor, seed: int = 0) -> Tensor:
    """[count, q], normal, in the dtype of ω."""
    return torch.randn(count, len(like), generator=torch.Generator().manual_seed(seed)).to(like)
