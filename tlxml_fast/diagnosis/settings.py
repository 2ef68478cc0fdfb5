"""Curvature, inverse and compression from the description that scores keep of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from ..compression import SJLT, SRHT, Compression, Rademacher
from ..curvature import Curvature, Fisher, GaussNewton, Hessian, Identity
from ..errors import CheckpointError
from ..solvers import CG, Dense, Inverse, Lanczos, Nystrom, Relative, Sketch, Woodbury
from ..solvers.preconditioners import Diagonal, NystromPreconditioner

CURVATURES = {made.name: made for made in (GaussNewton, Hessian, Fisher, Identity)}
INVERSES = {made.name: made for made in (Dense, Woodbury, CG, Nystrom, Lanczos)}
COMPRESSIONS = {made.name: made for made in (SJLT, SRHT, Rademacher)}
PRECONDITIONERS = {made.name: made for made in (Diagonal, NystromPreconditioner)}
RELATIVE = " of the largest |eigenvalue|"


def curvature_of(described: Mapping[str, Any]) -> Curvature:
    """From `Scores.info["curvature"]`."""
    return _made(CURVATURES, described["curvature"], described)


def inverse_of(described: Mapping[str, Any]) -> Inverse:
    """From the same; an entry that the curvature has too is there as inverse_*."""
    own = dict(described)
    own |= {
        key.removeprefix("inverse_"): value for key, value in described.items() if key.startswith("inverse_")
    }
    damping = own.get("damping")
    if isinstance(damping, str):
        own["damping"] = Relative(float(damping.removesuffix(RELATIVE)))
    if isinstance(own.get("preconditioner"), Mapping):
        own["preconditioner"] = _preconditioner(own["preconditioner"])
    return _made(INVERSES, described["inverse"], own)


def compression_of(described: Mapping[str, Any] | None) -> Compression | None:
    """From `Scores.info["compression"]`."""
    if described is None:
        return None
    storage = getattr(torch, described["storage"])
    return _made(COMPRESSIONS, described["compression"], {**described, "storage": storage})


def _preconditioner(described: Mapping[str, Any]) -> Any:
    if described["name"] == "none":
        return None
    if described["name"] == Sketch.name:
        return Sketch(curvature_of(described))
    return _made(PRECONDITIONERS, described["name"], described)


def _made(classes: Mapping[str, type], name: str, described: Mapping[str, Any]) -> Any:
    """The class of that name, made with those entries that its constructor takes."""
    if name not in classes:
        raise CheckpointError(f"the scores were computed with {name!r}, which is not known here")
    takes = inspect.signature(classes[name]).parameters
    return classes[name](**{key: value for key, value in described.items() if key in takes})
