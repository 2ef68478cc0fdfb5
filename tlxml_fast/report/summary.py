"""What was run: the `run` dictionary as tiles and definition tables, whatever it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..scores import Scores
from .figures import Plot, spectrum
from .text import anything, definitions, number, percent

TITLES = {
    "data": "Data",
    "learner": "Learner",
    "training": "Meta-training",
    "influence": "Influence",
    "spectrum": "Spectrum of the curvature",
    "certificate": "Certificate of the solve",
    "seconds": "Time, in seconds",
}
ELSEWHERE = {"warnings", "diagnosis", "created", "command"}  # shown at the top and in the footer
INTERVALS = ("accuracy_interval", "interval")


class Section(NamedTuple):
    """A titled definition table."""

    key: str
    title: str
    rows: list[tuple[str, str]]
    plot: Plot | None = None


class Tile(NamedTuple):
    """A figure to see at a glance."""

    label: str
    value: str
    note: str = ""


def sections(run: Mapping[str, Any]) -> list[Section]:
    """Known sections first, in their order, then unknown ones, then entries that are in no section."""
    keys = [*(key for key in TITLES if key in run), *(key for key in run if key not in TITLES)]
    made, loose = [], {}
    for key in keys:
        if key in ELSEWHERE:
            continue
        if not isinstance(run[key], Mapping):
            loose[key] = run[key]
            continue
        content, plot = dict(run[key]), None
        if key == "spectrum":
            plot = _spectrum_plot(content, run)
        made.append(
            Section(key, TITLES.get(key, str(key).replace("_", " ").capitalize()), definitions(content), plot)
        )
    if loose:
        made.append(Section("other", "Other", definitions(loose)))
    return made


def tiles(run: Mapping[str, Any], scores: Scores) -> list[Tile]:
    """The few numbers that say what this is; those that `run` does not hold are left out."""
    learner, training, influence = (_mapping(run.get(key)) for key in ("learner", "training", "influence"))
    made = [Tile("scores", f"{len(scores.test):,} × {len(scores.train):,}", "test × training tasks")]
    name = next(
        (learner[key] for key in ("name", "learner", "kind", "type") if learner.get(key)), run.get("learner")
    )
    if isinstance(name, str):
        made.append(Tile("learner", name))
    accuracy = _accuracy(training)
    if accuracy:
        made.append(Tile("held-out accuracy", *accuracy))
    if influence.get("curvature"):
        made.append(
            Tile("curvature", anything(influence["curvature"]), anything(influence.get("inverse", "")))
        )
    confidence = influence.get("median_confidence")
    if _is_number(confidence):
        made.append(Tile("median confidence", number(confidence), "of the predicted class of a query"))
    times = {key: value for key, value in _mapping(run.get("seconds")).items() if _is_number(value)}
    if times:
        made.append(Tile("time", f"{number(times.get('total', sum(times.values())))} s", "in all"))
    return made


def warnings(run: Mapping[str, Any]) -> list[str]:
    """The warnings, one sentence each."""
    given = run.get("warnings") or []
    return [given] if isinstance(given, str) else [str(warning) for warning in given]


def _spectrum_plot(content: dict[str, Any], run: Mapping[str, Any]) -> Plot | None:
    """The plot of the eigenvalues, which are taken out of the table."""
    values = content.pop("eigenvalues", None)
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    values = [float(value) for value in values if _is_number(value)]
    influence = _mapping(run.get("influence"))
    places = (content, influence, _mapping(influence.get("inverse")))
    damping = next((place["damping"] for place in places if _is_number(place.get("damping"))), None)
    return spectrum(values, damping) if any(values) else None


def _accuracy(training: Mapping[str, Any]) -> tuple[str, str] | None:
    """("93.1%", "± 0.4, 95% interval") from training.accuracy and its interval: half width or both ends."""
    accuracy = training.get("accuracy")
    place = accuracy if isinstance(accuracy, Mapping) else training
    if isinstance(accuracy, Mapping):
        accuracy = next((accuracy[key] for key in ("mean", "value", "accuracy") if key in accuracy), None)
    if not _is_number(accuracy):
        return None
    interval = next((place[key] for key in INTERVALS if key in place), None)
    if _is_number(interval):
        return f"{100 * accuracy:.1f}%", f"± {100 * interval:.1f}, 95% interval"
    if isinstance(interval, Sequence) and len(interval) == 2 and all(map(_is_number, interval)):
        return f"{100 * accuracy:.1f}%", f"{100 * interval[0]:.1f} to {percent(interval[1])}, 95% interval"
    return f"{100 * accuracy:.1f}%", ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
