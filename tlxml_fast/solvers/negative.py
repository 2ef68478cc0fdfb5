"""What becomes of eigen-directions with a negative eigenvalue."""

from __future__ import annotations

from torch import Tensor

from ..errors import CurvatureError

NEGATIVE = ("drop", "keep", "abs", "error")


def check_negative(negative: str) -> None:
    """Raise CurvatureError for an unknown choice."""
    if negative not in NEGATIVE:
        raise CurvatureError(f"negative is one of {', '.join(NEGATIVE)}, not {negative!r}")


def refuse_negative(eigenvalues: Tensor, negative: Tensor) -> None:
    """Raise CurvatureError where the mask `negative` has any."""
    if negative.any():
        raise CurvatureError(
            f"{int(negative.sum())} of {len(eigenvalues)} eigenvalues are negative, "
            f"the lowest {float(eigenvalues.min()):.3g}"
        )
