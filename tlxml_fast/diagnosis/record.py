"""A diagnosis on disk, and which scores it is of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InfluenceWarning
from ..files import read_json, understanding
from ..kept import digest
from ..scores import Scores


def key(info: Mapping[str, Any], train: Sequence[str], test: Sequence[str], target: str) -> str:
    """Names scores by what they were made of: the trained learner, curvature, inverse, and the tasks' ids.

    `info` is `Scores.info`, or has the same "learner", "training", "curvature" and "compression".
    """
    made = {name: info.get(name) for name in ("learner", "training", "compression")}
    curvature = {name: value for name, value in info["curvature"].items() if name != "spectrum"}
    tasks = {"train": list(train), "test": list(test)}
    return digest({**made, "curvature": curvature, "target": target, **tasks})


def diagnosis_of(path: Path, scores: Scores) -> dict[str, Any] | None:
    """What `Diagnosis.describe` gave; None where there is none. One of other scores is left out with a warning."""
    if not path.exists():
        return None
    found = read_json(path)
    with understanding(path):
        if found["of"] == key(scores.info, scores.train.ids, scores.test.ids, scores.target):
            return found
    warnings.warn(f"{path} is of other scores, and is left out", InfluenceWarning, stacklevel=3)
    return None
