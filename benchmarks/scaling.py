"""How the cost of a Gauss-Newton product grows: swept, and fitted by a power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np

from .cases import GENERAL, Case, mlp_learner, vector_tasks
from .measure import OURS, Row, Settings

# A contestant runs no more at a point once it has taken as long; short ones run twice the rounds of a case instead.
SECONDS = 0.5
# Both spread tasks and vectors over one vmap. At a sweep's first point both run, then the faster alone.
RIVALS = GENERAL[:2]


@dataclass(frozen=True)
class Power:
    """seconds = c·x^exponent, by least squares of the logarithms over from ≤ x ≤ to."""

    exponent: float
    coefficient: float
    r2: float
    start: float
    end: float

    @classmethod
    def fit(cls, points: list[tuple[float, float]], start: float) -> Power | None:
        """To the points with x ≥ start; None of fewer than 2."""
        used = [(x, y) for x, y in points if x >= start]
        if len(used) < 2:
            return None
        x, y = np.log(np.array(used)).T
        exponent, constant = np.polyfit(x, y, 1)
        rest, whole = y - exponent * x - constant, y - y.mean()
        r2 = 1 - (rest @ rest) / (whole @ whole)
        return cls(float(exponent), float(np.exp(constant)), float(r2), used[0][0], used[-1][0])


@dataclass(frozen=True)
class Sweep:
    """One quantity varied, the rest fixed.

    start  the least x that the exponent is fitted from: below it fixed costs show
    """

    quantity: str
    fixed: str
    values: tuple[int, ...]
    case: Callable[[int], Case]
    start: float
    x: Callable[[int], float] = float

    in_processes = False

    @property
    def name(self) -> str:
        """For the table and `--only`."""
        return f"scaling of a GN product with {self.quantity}, {self.fixed}"

    def run(self, settings: Settings) -> Row:
        """Every point is a case: validated, then timed, in turns. One that would take too long ends its line."""
        short = replace(settings, rounds=2 * settings.rounds, seconds=min(settings.seconds, SECONDS))
        points: dict[str, list[tuple[float, float]]] = {OURS: []}
        rivals, missing = RIVALS, {}
        for value in self.values:
            x, case = self.x(value), replace(self.case(value), against=rivals)
            timings, absent = case.timed(case.tasks(settings.seed), short)
            missing |= absent
            seconds = {name: timing.median for name, timing in timings.items()}
            if len(seconds) > 2:
                slower = max(rivals, key=seconds.__getitem__)
                del seconds[slower]
            for name, taken in seconds.items():
                points.setdefault(name, []).append((x, taken))
            rivals = tuple(
                name for name in seconds if name != OURS and _next(points[name]) < settings.seconds
            )
        fits = {name: Power.fit(measured, self.start) for name, measured in points.items()}
        return {
            "quantity": self.quantity,
            "fixed": self.fixed,
            "points": points,
            "fits": {name: asdict(fit) for name, fit in fits.items() if fit},
            "timings": {},
            "missing": missing,
            "goals": [],
        }


def _next(points: list[tuple[float, float]]) -> float:
    """The seconds the next point may take, if growth goes on."""
    if len(points) == 1:
        return 2 * points[0][1]
    return points[-1][1] * max(points[-1][1] / points[-2][1], 1.0)


def _case(count: int, K: int, steps: int = 5, hidden: int = 32) -> Case:
    return Case("", mlp_learner(steps, hidden), lambda seed: vector_tasks(count, seed), K, ())


SWEEPS = (
    Sweep("tasks", "MAML MLP 34-32-5, 5 steps, K=8", tuple(2**i for i in range(6, 13)), lambda T: _case(T, 8), 64),
    Sweep("vectors", "MAML MLP 34-32-5, 5 steps, 64 tasks", tuple(2**i for i in range(8)), lambda K: _case(64, K), 8),
    Sweep("inner steps", "MAML MLP 34-32-5, 64 tasks, K=8", (1, 2, 3, 4, 6, 8, 10), lambda s: _case(64, 8, s), 1),
    Sweep("parameters", "MAML MLP 34-w-5, w = 8…512, 5 steps, 16 tasks, K=8", tuple(2**i for i in range(3, 10)),
          lambda w: _case(16, 8, hidden=w), 1_000, lambda w: 40.0 * w + 5),
)  # fmt: skip
