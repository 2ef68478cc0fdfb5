"""Plans as tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from .advice import Advice
from .plans import ESTIMATE, EXACT, OTHER, Plan
from .predict import Prediction
from .units import bytes_of, flops_of, time_of


def summary(plans: Sequence[Plan], advice: Advice) -> Table:
    """A line a plan."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("curvature + inverse", no_wrap=True)
    for heading in ("time", "memory", "storage", "traffic"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it gives")
    for plan in plans:
        table.add_row(
            "→" if plan is advice.plan else "",
            Text(plan.name, "" if plan.fits else "dim"),
            time_of(plan.seconds),
            bytes_of(plan.memory),
            bytes_of(plan.storage) if plan.stored else "",
            bytes_of(plan.traffic) if plan.traffic else "",
            Text(_verdict(plan), "" if plan.fits else "red"),
        )
    return table


def phases(plan: Plan) -> Table:
    """A line a phase, and their sum."""
    table = Table(box=None, padding=(0, 2, 0, 0), title=plan.name, title_justify="left")
    table.add_column("phase", no_wrap=True)
    for heading in ("time", "work", "memory", "stored", "traffic"):
        table.add_column(heading, justify="right", no_wrap=True)
    for phase, seconds, resident in zip(plan.phases, plan.each, plan.resident(plan.stored), strict=True):
        table.add_row(
            phase.name,
            time_of(seconds),
            flops_of(phase.flops),
            bytes_of(resident),
            bytes_of(plan.processes * phase.stored) if phase.stored and plan.stored else "",
            bytes_of(phase.traffic) if phase.traffic else "",
        )
    flops = sum(phase.flops for phase in plan.phases)
    table.add_row(
        "all", time_of(plan.seconds), flops_of(flops), bytes_of(plan.memory),
        bytes_of(plan.storage) if plan.stored else "", bytes_of(plan.traffic) if plan.traffic else "",
    )  # fmt: skip
    return table


def sentences(advice: Advice) -> Iterator[str]:
    """What the columns mean, and the advice."""
    yield (
        "Memory and traffic are those of one process, storage of all; a store is needed where memory does not hold "
        "gradients and rows. How many iterations and passes there are is a guess, everything else is counted."
    )
    yield (
        f"Recommended: {advice.plan.name}, {advice.why[0]}."
        if advice.plan
        else f"Not possible: {advice.why[0]}."
    )
    for more in advice.why[1:]:
        yield f"{more[0].upper()}{more[1:]}."


def _verdict(plan: Plan) -> str:
    if not plan.fits:
        return "too large to decompose" if plan.unlike else "does not fit"
    given = {EXACT: "exact", ESTIMATE: "estimate", OTHER: "other scores"}[plan.kind]
    given = f"{given}, {plan.assumes}" if plan.assumes and plan.kind == EXACT else given
    return f"{given}, store" if plan.stored else given


def heading(found: Prediction) -> Iterator[str]:
    """What is asked, and where the figures are from."""
    job, rates = found.job, found.rates
    processes = f"{rates.processes:,} processes" if rates.processes > 1 else "1 process"
    kept = "" if job.compression is None else f", kept as {job.width:,} numbers"
    yield (
        f"{job.tasks:,} training × {job.tests:,} test tasks, {job.work.q:,} parameters{kept}; {processes}, "
        f"{bytes_of(rates.room)} each"
    )
    rates_from, tasks_from = found.sources
    yield (
        f"Rates: {rates_from}. {flops_of(rates.gram)}/s in float32 Gram matrices, {flops_of(rates.product)}/s in "
        f"float64 products, {flops_of(rates.eigh)}/s in eigendecompositions; copies {bytes_of(rates.copy)}/s, disk "
        f"{bytes_of(rates.write)}/s written and {bytes_of(rates.read)}/s read."
    )
    work = flops_of(job.work.primal + job.work.vector)
    yield f"Tasks: {tasks_from}; a gradient is {work}, in {time_of(found.engine.gradient())}."
