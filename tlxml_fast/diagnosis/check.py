"""A check of one assumption, and its grade."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..report.text import number

GRADES = ("good", "doubtful", "bad", "unknown")
QUESTIONS = {
    "tasks": "Are the fitted tasks those that training minimised over?",
    "confidence": "Do predictions leave curvature, or is Λ nearly 0?",
    "residuals": "Were the linear systems solved?",
    "stationarity": "Is ω̂ a stationary point of the objective?",
    "damping": "Do the ranks hang on the damping?",
    "rank": "Do the ranks hang on how many directions are kept?",
    "damped part": "Is the damping small beside the curvature that gradients meet?",
    "linearity": "Does a test loss respond linearly to the removal of one task?",
    "Gauss-Newton": "What does the Gauss-Newton approximation drop?",
    "negative curvature": "Is ω̂ a minimum, or does the exact Hessian bend down?",
    "sketch": "Do the ranks hang on the seed of a sketch?",
    "training seeds": "Do other training runs give the same ranks?",
}


@dataclass(frozen=True)
class Check:
    """One assumption of influence functions, measured on the run at hand."""

    name: str
    """A key of QUESTIONS."""
    grade: str
    """"good", "doubtful" or "bad"; "unknown" where it could not be measured, for the reason that `verdict` gives."""
    verdict: str
    """What was found, in one or two sentences with the figures."""
    values: dict[str, Any] = field(default_factory=dict)
    """The figures by name; JSON."""
    advice: str = ""
    """What would help, as an imperative clause; empty where nothing needs to."""

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ValueError(f"a grade is one of {', '.join(GRADES)}, not {self.grade!r}")

    @property
    def question(self) -> str:
        """What is asked."""
        return QUESTIONS[self.name]

    def describe(self) -> dict[str, Any]:
        """JSON: what is not finite becomes null."""
        values = {key: _finite(value) for key, value in self.values.items()}
        return {**asdict(self), "question": self.question, "values": values}


def figure(value: float) -> str:
    """Two significant digits, for a verdict."""
    return number(float(f"{value:.2g}"))


def at_most(value: float | None, good: float, doubtful: float) -> str:
    """ "good" up to `good`, "doubtful" up to `doubtful`, "bad" above; "unknown" for what is not a number."""
    if value is None or math.isnan(value):
        return "unknown"
    return "good" if value <= good else "doubtful" if value <= doubtful else "bad"


def at_least(value: float | None, good: float, doubtful: float) -> str:
    """ "good" down to `good`, "doubtful" down to `doubtful`, "bad" below; "unknown" for what is not a number."""
    return at_most(None if value is None else -value, -good, -doubtful)


def worst(grades: Iterable[str]) -> str:
    """The worst grade there is; "unknown" where nothing else is."""
    known = [grade for grade in grades if grade != "unknown"]
    return max(known, key=GRADES.index, default="unknown")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
