"""How an answer is judged: against the truth to a tolerance, or by being refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..protocol import Certificate

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
"""Of ‖x − truth‖/‖truth‖."""
ROUNDING = 1e-10
"""Of a residual."""


class Failure(Exception):
    """A backend that is wrong, and how."""


def equal(what: str, found: Tensor, truth: Tensor, tolerance: float = TOLERANCE[torch.float64]) -> None:
    """‖x − truth‖ ≤ tolerance·‖truth‖, so that of a truth that is zero nothing but zero is right."""
    if found.shape != truth.shape:
        raise Failure(f"{what}: shape {tuple(found.shape)}, not {tuple(truth.shape)}")
    found, truth = found.detach().double(), truth.detach()
    error, size = float((found - truth).norm()), float(truth.norm())
    if not error <= tolerance * size:
        relative = error / size if size else float("inf")
        raise Failure(
            f"{what}: relative error {relative:.1e}, above {tolerance:.0e}{_multiple(found, truth)}"
        )


def _multiple(found: Tensor, truth: Tensor) -> str:
    """By how much an answer of the right direction is too large: a sign, or a sum for a mean."""
    lengths = float(found.norm() * truth.norm())
    if not lengths or not abs(float((found * truth).sum())) > 0.999 * lengths:
        return ""
    return f"; it is {float((found * truth).sum() / truth.square().sum()):.4g} times what it should be"


def refused(what: str, call: Callable[[], object]) -> None:
    """The call raises."""
    try:
        call()
    except Exception:
        return
    raise Failure(f"{what} is accepted")


def certified(
    what: str,
    certificate: Certificate,
    bounds: Sequence[tuple[float, float]],
    damping: float | None,
) -> None:
    """It converged, has the damping that was asked for, and every residual lies within its bounds."""
    if len(certificate.residuals) != len(bounds):
        raise Failure(
            f"the certificate of {what} is of {len(certificate.residuals)} right-hand sides, not {len(bounds)}"
        )
    if not certificate.converged:
        raise Failure(f"the certificate of {what} says that it did not converge")
    if damping is not None and not abs(certificate.damping - damping) <= ROUNDING:
        raise Failure(
            f"the certificate of {what} has damping {certificate.damping:.3g}, and {damping:.3g} was asked for"
        )
    for said, (least, most) in zip(certificate.residuals, bounds, strict=True):
        if not least - ROUNDING <= said <= most + ROUNDING:
            raise Failure(
                f"the certificate of {what} has a residual of {said:.1e}, not between {least:.1e} and {most:.1e}"
            )
