"""`Scores.info` in the sections that a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AS_THEY_ARE = ("learner", "seconds", "warnings", "created")


def sections_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What was run, section by section; an entry that belongs to no other section is part of "influence"."""
    rest = dict(info)
    made = {key: rest.pop(key) for key in AS_THEY_ARE if key in rest}
    if "tasks" in rest:
        made["data"] = {f"{side} tasks": _in_words(spec) for side, spec in rest.pop("tasks").items()}
    if "training" in rest:
        made["training"] = _training(rest.pop("training"))
    curvature = rest.pop("curvature", {})
    curvature = dict(curvature) if isinstance(curvature, Mapping) else {"curvature": curvature}
    made["spectrum"] = curvature.pop("spectrum", None)
    made["certificate"] = _certificate(rest.pop("certificate", None))
    made["influence"] = {**curvature, **rest}
    return {key: value for key, value in made.items() if value}


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    """The last evaluation first, then the settings."""
    last = (record.get("history") or [{}])[-1]
    result = {key: last[key] for key in ("accuracy", "accuracy_interval", "loss") if key in last}
    return {**result, **{key: value for key, value in record.items() if key not in ("history", "origin")}}


def _certificate(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The worst residual for all, and whether that is what it should be, first."""
    if not found:
        return {}
    first = {"converged": found["converged"], "worst_residual": found["worst_residual"]}
    # whether an inverse is exact by design says nothing of a solve that did not converge
    left_out = {"residuals"} if found["converged"] else {"residuals", "exact"}
    return {
        **first,
        **{key: value for key, value in found.items() if key not in left_out and value is not None},
    }


def _in_words(spec: Mapping[str, Any]) -> str:
    shape = f"{spec['ways']}-way, {spec['shots']} shots, {spec['queries']} queries a class"
    return f"{spec['count']} of {spec['source']}/{spec['split']}: {shape}, seed {spec['seed']}"
