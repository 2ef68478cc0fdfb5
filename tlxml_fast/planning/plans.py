"""One way to compute a job: its phases, and what they come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .job import Phase

EXACT, ESTIMATE, OTHER = "exact", "estimate", "other"


@dataclass(frozen=True)
class Plan:
    """One curvature with one inverse.

    kind     "exact": Gauss-Newton scores to the tolerance; "estimate" of those; "other": another curvature's
    projected  whether gradients and rows are compressed
    phases   in order
    room     bytes a process may have
    tasks    bytes that tasks themselves take
    unlike   why it cannot run, whatever there is
    assumes  what is not known before it runs
    """

    curvature: str
    inverse: str
    kind: str
    projected: bool
    phases: tuple[Phase, ...]
    room: int
    base: int
    tasks: int
    processes: int
    write: float
    read: float
    unlike: str = ""
    assumes: str = ""

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.curvature} + {self.inverse}" if self.inverse else self.curvature

    def resident(self, stored: bool) -> list[float]:
        """Bytes of one process in each phase."""
        held, found = self.base + self.tasks, []
        for phase in self.phases:
            held += phase.holds + (0 if stored else phase.stored)
            found.append(held + phase.needs)
        return found

    @property
    def stored(self) -> bool:
        """Whether gradients and rows must lie in a store: memory does not hold them."""
        return max(self.resident(False)) > self.room

    @property
    def memory(self) -> float:
        """The most bytes a process has."""
        return max(self.resident(self.stored))

    @property
    def fits(self) -> bool:
        """Whether it runs."""
        return not self.unlike and self.memory <= self.room

    @property
    def each(self) -> list[float]:
        """Seconds of each phase, with those of the store where there is one."""
        if not self.stored:
            return [phase.seconds for phase in self.phases]
        return [p.seconds + p.stored / self.write + p.read / self.read for p in self.phases]

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return sum(self.each)

    @property
    def storage(self) -> float:
        """Bytes that a store would take, or takes: of gradients and rows of all processes."""
        return self.processes * sum(phase.stored for phase in self.phases)

    @property
    def traffic(self) -> float:
        """Bytes that a process sends."""
        return sum(phase.traffic for phase in self.phases)

    def describe(self) -> dict[str, Any]:
        """JSON; bytes and seconds."""
        phases = [
            {**asdict(phase), "seconds": seconds, "resident": resident}
            for phase, seconds, resident in zip(
                self.phases, self.each, self.resident(self.stored), strict=True
            )
        ]
        own = {
            key: getattr(self, key)
            for key in ("curvature", "inverse", "kind", "seconds", "memory", "storage", "stored", "traffic")
        }
        return {**own, "fits": self.fits, "why_not": self.unlike, "assumes": self.assumes, "phases": phases}
