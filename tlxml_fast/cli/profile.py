"""tlxml-fast profile."""

from __future__ import annotations

from functools import wraps
from typing import Any

from rich.table import Table
from rich.text import Text

from ..profiling import Profile
from ..runs import PROFILE, TRACE, profile_run
from .common import console
from .influence import influence, influence_arguments, where_results_are


@wraps(influence, assigned=("__annotations__",))  # the same arguments, options and defaults
def profile(**options: Any) -> None:
    """What each operation of an influence run takes: a table, profile.json, and a trace of when it ran."""
    given = influence_arguments(**options)
    scores, profiled = profile_run(**given)
    on = f"{profiled.threads} threads" if profiled.threads > 1 else "1 thread"
    on = str(profiled.device) if profiled.device.type == "cuda" else f"the CPU, {on}"
    console.print(f"{scores}\n\n{profiled.seconds:.2f} s on {on}\n", highlight=False)
    console.print(_profile_table(profiled))
    reached = " and ".join(
        f"{p.flops / 1e9:,.0f} GFLOP/s, {p.bytes / 1e9:,.0f} GB/s in {name}"
        for name, p in profiled.peaks().items()
    )
    out = given["out"]
    console.print(
        f"\nThe peaks, of a matrix product and of a copy: {reached}.\n"
        f"The profile is {out / PROFILE}\nThe trace is   {out / TRACE}, for chrome://tracing or "
        f"ui.perfetto.dev\n{where_results_are(given)}",
        highlight=False,
    )


def _profile_table(profiled: Profile) -> Table:
    def number(value: float | None, unit: float) -> str:
        scaled = (value or 0.0) / unit
        return "" if value is None else f"{scaled:,.1f}" if scaled >= 1 else f"{scaled:.1g}"

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("op")
    for heading in ("calls", "ms", "share", "GFLOP/s", "GB/s", "of peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by")
    for row in profiled.rows():
        table.add_row(
            Text(row.op),
            f"{row.calls:,}" if row.calls else "",
            number(row.seconds, 1e-3),
            f"{row.share:.1%}",
            number(row.flops_per_second, 1e9),
            number(row.bytes_per_second, 1e9),
            "" if row.peak is None else f"{row.peak:.1%}",
            row.bound or "",
        )
    return table
