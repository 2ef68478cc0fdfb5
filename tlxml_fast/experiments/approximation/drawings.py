"""The figures: methods as dots, ranks against rows, ranks against seconds."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ...report.figures import Theme
from ..outcome import Drawing
from .compared import (
    BASELINE,
    EXACT_HESSIAN,
    FISHER,
    GAUSS_NEWTON,
    LOW_RANK,
    NO_CURVATURE,
    PROJECTED,
    ROWS,
    sketch,
)
from .conclusions import AGREES
from .results import Results

MARKERS = {
    EXACT_HESSIAN: "D",
    GAUSS_NEWTON: "s",
    FISHER: "o",
    PROJECTED: "^",
    LOW_RANK: "v",
    NO_CURVATURE: "P",
    BASELINE: "X",
}


def drawings(results: Results) -> list[Drawing]:
    """One of dots for each learner, then two of all."""
    return [
        *(_dots(results, case) for case in results.cases),
        Drawing(
            "rows",
            "Ranks by s sketched rows a task, against those by the whole Gauss-Newton matrix: Spearman's correlation, "
            "median over test tasks and seeds, quartiles shaded, at two dampings.",
            partial(_against_rows, results),
            width=max(6.2, 2.5 * len(results.cases) + 0.6),
            height=2.8,
        ),
        Drawing(
            "seconds",
            "What a method takes, from the trained learner to the scores, and how well it ranks at the smaller "
            "damping: the median of Spearman's correlation with exact scores, or with Gauss-Newton's where those are "
            "too dear.",
            partial(_against_seconds, results),
            width=max(6.2, 2.5 * len(results.cases) + 0.6),
            height=3.4,
        ),
    ]


def _colour(theme: Theme, family: str) -> str:
    return {
        EXACT_HESSIAN: theme.ink,
        GAUSS_NEWTON: theme.ink,
        FISHER: theme.helpful[1],
        PROJECTED: theme.helpful[2],
        LOW_RANK: theme.helpful[0],
        NO_CURVATURE: theme.harmful[0],
        BASELINE: theme.harmful[1],
    }[family]


# ---- a dot a method ----------------------------------------------------------------------------------------


def _dots(results: Results, case: str) -> Drawing:
    name = case.lower().replace(",", "").replace(" ", "-")
    low, *high = (f"{fraction:g}" for fraction in results.fractions(case))
    return Drawing(
        f"methods-{name}",
        f"{case}: Spearman's correlation over training tasks, median and quartiles over test tasks and seeds. Filled: "
        f"at damping {low} of the largest eigenvalue; open: {', '.join(high)}.",
        partial(_draw_dots, results, case),
        width=7.2,
        height=0.9 + 0.19 * len(results.methods(case)),
    )


def _draw_dots(results: Results, case: str, figure: Figure, theme: Theme) -> None:
    references, methods = results.references(case), results.methods(case)
    panels = figure.subplots(1, len(references), sharex=True, sharey=True, squeeze=False)[0]
    for axes, against in zip(panels, references, strict=True):
        for y, (method, family) in enumerate(methods.items()):
            colour = _colour(theme, family)
            for i in range(len(results.fractions(case))):
                low, middle, high = results.quartiles(case, method, against, i)
                place = y + 0.28 * i - 0.14
                axes.plot([low, high], [place, place], color=colour, linewidth=1, alpha=0.6)
                face = theme.paper if i else colour
                axes.plot([middle], [place], "o", color=colour, markerfacecolor=face, markersize=3.6)
        axes.axvline(0, color=theme.ink, linewidth=0.6)
        axes.axvline(AGREES, color=theme.ink, linewidth=0.6, linestyle=(0, (2, 2)))
        axes.grid(axis="y", color=theme.faint, linewidth=0.3, alpha=0.6)
        axes.set_xlabel(f"ρ with {against}")
        axes.set_xlim(right=1.04)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(methods)), labels=list(methods))
    panels[0].set_ylim(len(methods) - 0.4, -0.6)


# ---- panels, one a learner ---------------------------------------------------------------------------------


def _panels(results: Results, figure: Figure) -> list[tuple[str, Axes]]:
    grid = figure.subplots(1, len(results.cases), sharey=True, squeeze=False)[0]
    for case, axes in zip(results.cases, grid, strict=True):
        axes.set_title(case, fontsize=8)
    return list(zip(results.cases, grid, strict=True))


def _against_rows(results: Results, figure: Figure, theme: Theme) -> None:
    panels = _panels(results, figure)
    for case, axes in panels:
        known = [s for s in ROWS if sketch(s) in results.methods(case)]
        for i, (fraction, colour) in enumerate(
            zip(results.fractions(case), (theme.helpful[1], theme.harmful[1]), strict=True)
        ):
            found = [results.quartiles(case, sketch(s), GAUSS_NEWTON, i) for s in known]
            low, middle, high = zip(*found, strict=True)
            axes.fill_between(known, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(known, middle, "o-", color=colour, markersize=3.5, linewidth=1.3, label=f"{fraction:g}")
        axes.axhline(AGREES, color=theme.ink, linewidth=0.6, linestyle=(0, (2, 2)))
        axes.set_xscale("log", base=2)
        axes.set_xticks(known, labels=map(str, known))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("rows a task")
    panels[0][1].set_ylim(top=1.03)  # of all, once they are all drawn
    panels[0][1].set_ylabel("ρ with Gauss-Newton")
    panels[-1][1].legend(frameon=False, title="damping", labelcolor=theme.ink)


def _against_seconds(results: Results, figure: Figure, theme: Theme) -> None:
    panels = _panels(results, figure)
    shown = {}
    for case, axes in panels:
        against = results.references(case)[0]
        for family, marker in MARKERS.items():
            points = [
                (seconds, results.quartiles(case, method, against)[1])
                for method, its in results.methods(case).items()
                if its == family and (seconds := results.seconds(case, method)) is not None
            ]
            if points:
                style = "-" if family == FISHER else ""
                (shown[family],) = axes.plot(
                    *zip(*points, strict=True),
                    marker + style,
                    color=_colour(theme, family),
                    markersize=4.5,
                    linewidth=0.8,
                )
        axes.axhline(0, color=theme.ink, linewidth=0.6)
        axes.set_xscale("log")
        axes.set_xlabel("seconds")
    panels[0][1].set_ylabel("ρ with exact scores")
    figure.legend(
        shown.values(), shown, loc="outside lower center", ncols=4, frameon=False, labelcolor=theme.ink
    )
