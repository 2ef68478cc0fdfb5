"""Which plan to use, by rule, and what an exact one would take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .plans import ESTIMATE, EXACT, Plan
from .units import bytes_of, time_of

# How many times as long gradients as they are may take, rather than projected ones.
WORTH = 2.0


@dataclass(frozen=True)
class Advice:
    """The plan to use, None if nothing fits, and why in sentences."""

    plan: Plan | None
    why: tuple[str, ...]


def advise(plans: Sequence[Plan], allowed: float) -> Advice:
    """Of what fits in memory: the quickest exact plan, if within `allowed` seconds, else the quickest estimate.

    One without projection is preferred to one with that takes half the time or more. Where there is no estimate, the
    quickest exact one; another curvature's scores are never advised.
    """
    fitting = [plan for plan in plans if plan.fits]
    exact = _quickest(plan for plan in fitting if plan.kind == EXACT)
    estimates = [plan for plan in fitting if plan.kind == ESTIMATE]
    estimate, whole = _quickest(estimates), _quickest(plan for plan in estimates if not plan.projected)
    why = "the quickest estimate of Gauss-Newton scores that fits"
    if whole is not None and whole is not estimate and whole.seconds <= WORTH * estimate.seconds:
        why = f"the quickest estimate that fits without a projection, which would save {_saved(whole, estimate)}"
        estimate = whole
    if exact is not None and exact.seconds <= allowed:
        return Advice(exact, (f"the quickest exact one that fits, within the {time_of(allowed)} allowed",))
    if estimate is not None:
        if exact is not None and exact.seconds <= estimate.seconds:
            return Advice(exact, ("exact, and no estimate that fits is quicker",))
        return Advice(estimate, (why, _towards_exact(plans, exact, allowed)))
    if exact is not None:
        return Advice(exact, ("the quickest exact one, and no estimate fits",))
    least = min((plan for plan in plans if not plan.unlike), key=lambda plan: plan.memory)
    return Advice(
        None,
        (
            f"nothing fits in {bytes_of(least.room)} a process: {least.name} needs the least, "
            f"{bytes_of(least.memory)}; compress gradients (--compress sjlt:2048), or take more or larger devices",
        ),
    )


def _saved(slow: Plan, quick: Plan) -> str:
    return f"{1 - quick.seconds / slow.seconds:.0%} of the time"


def _quickest(plans: Iterable[Plan]) -> Plan | None:
    return min(plans, key=lambda plan: plan.seconds, default=None)


def _towards_exact(plans: Sequence[Plan], fits: Plan | None, allowed: float) -> str:
    """What would have to change for an exact plan."""
    if fits is not None:
        return (
            f"an exact one that fits, {fits.name}, takes {time_of(fits.seconds)}: allow that by --hours "
            f"{fits.seconds / 3600:.2g}, or have about {fits.seconds / allowed:,.0f} times the devices or fewer tasks"
        )
    exact = [plan for plan in plans if plan.kind == EXACT and not plan.unlike]
    if not exact:
        return "none is exact in a projection: for that leave out --compress"
    least = min(exact, key=lambda plan: plan.memory)
    return (
        f"no exact one fits: {least.name} needs the least, {bytes_of(least.memory)} of the {bytes_of(least.room)} that "
        f"a process may have, and {time_of(least.seconds)}"
        + ("; fewer test tasks at a time need less" if "CG" in least.inverse else "")
    )
