"""Inverses and compressions by name, from options that each takes some of."""

from __future__ import annotations

from typing import Any

import torch

from ..compression import SJLT, SRHT, Compression, Rademacher
from ..curvature import Fisher
from ..errors import CurvatureError, TlxError
from ..solvers import CG, Dense, Inverse, Lanczos, Nystrom, Relative, Sketch, Woodbury
from .common import one_of

# Which options an inverse takes, besides those it needs not be told.
TAKES = {
    "dense": ("damping", "rank", "rtol", "negative"),
    "woodbury": ("damping", "tol", "allow_unconverged"),
    "cg": ("damping", "tol", "max_iter", "preconditioner", "allow_unconverged"),
    "nystrom": ("damping", "rank"),
    "lanczos": ("rank", "negative", "tol", "allow_unconverged"),
}
INVERSES = {"dense": Dense, "woodbury": Woodbury, "cg": CG, "nystrom": Nystrom, "lanczos": Lanczos}
COMPRESSIONS = {"sjlt": SJLT, "srht": SRHT, "rademacher": Rademacher}
STORAGES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DEFAULT_DAMPING = "1e-3x"
UNSET = (None, False, "drop")


def inverse_of(name: str, rows_per_task: int, **options: Any) -> Inverse:
    """The inverse of that name. Raises CurvatureError for an option it does not take."""
    make, takes = one_of("inverse", name, INVERSES), one_of("inverse", name, TAKES)
    given = {option: value for option, value in options.items() if value not in UNSET}
    odd = sorted(set(given) - set(takes))
    if odd:
        raise CurvatureError(f"the inverse {name} takes no {odd[0].replace('_', '-')}")
    pseudo = name == "lanczos" or (name == "dense" and {"rank", "rtol"} & set(given))
    if name in ("nystrom", "lanczos") and "rank" not in given:
        raise CurvatureError(f"the inverse {name} needs a rank")
    if not pseudo:
        given["damping"] = _damping(given.get("damping", DEFAULT_DAMPING))
    elif "damping" in given:
        given["damping"] = _damping(given["damping"])
    if given.get("preconditioner") == "sketch":
        given["preconditioner"] = Sketch(Fisher(rows_per_task))
    return make(**given)


def compression_of(text: str | None, storage: str) -> Compression | None:
    """From "sjlt:2048"; None where there is none."""
    one_of("storage", storage, STORAGES)
    if text is None:
        if storage != "float32":
            raise TlxError("storage is of what is compressed; give compress too")
        return None
    name, _, dimension = text.partition(":")
    if not dimension.isdigit():
        raise TlxError(f"compress is a name and a dimension, such as sjlt:2048, not {text!r}")
    make = one_of("compress", name, COMPRESSIONS)
    return make(int(dimension), storage=one_of("storage", storage, STORAGES))


def _damping(text: str) -> float | Relative:
    try:
        number = float(text.removesuffix("x"))
    except ValueError:
        raise CurvatureError(f"damping is a number, or one followed by x, not {text!r}") from None
    return Relative(number) if text.endswith("x") else number
