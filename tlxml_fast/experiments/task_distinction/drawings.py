"""Figures of self-ranks, darkening and spectra."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.figures import Theme
from ..outcome import Drawing
from .cases import ALPHAS, Case

QUARTILES = (25, 50, 75)


def drawings(cases: Sequence[Case]) -> list[Drawing]:
    """Self-ranks by kept directions, darkening, and the exact Hessian's spectrum."""
    return [
        Drawing(
            "self-ranks",
            "Share of the training tasks that rank themselves first, by how many eigen-directions the pseudo-inverse "
            "keeps. Diamonds: the damped inverse.",
            partial(_self_ranks, cases=cases),
            height=3.4,
        ),
        Drawing(
            "darkening",
            "The self-rank, and the self-score as a share of that at α = 0, as the test task is darkened; damped "
            "inverse, median and quartiles over tasks.",
            partial(_darkening, cases=cases),
            height=4.8,
        ),
        Drawing(
            "spectrum",
            "Eigenvalues of the exact Hessian by size, down to rounding; first seed.",
            partial(_spectra, cases=[case for case in cases if case.exact]),
            height=2.9,
        ),
    ]


def _self_ranks(figure: Figure, theme: Theme, cases: Sequence[Case]) -> None:
    axes = figure.add_subplot()
    last = max(rank for case in cases for each in case.each for rank in each["ranks"])
    for i, case in enumerate(cases):
        x = [*case.ranks, float(np.median([each["ranks"][-1] for each in case.each]))]
        y = [100 * case.first(point) for point in case.points]
        axes.plot(x, y[:-1], ".-", color=f"C{i}", label=case.label)
        axes.plot(2 * last * 1.12**i, y[-1], "D", color=f"C{i}", markersize=3.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("eigen-directions kept")
    axes.set_ylabel("tasks that rank\nthemselves first, %")
    axes.set_ylim(-3, 103)
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=7)


def _darkening(figure: Figure, theme: Theme, cases: Sequence[Case]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    for i, case in enumerate(cases):
        scores = case.darkened("self_scores")
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = scores / scores[:, :1]
        for axes, values in ((above, case.darkened("self_ranks")), (below, shares)):
            _band(axes, values, f"C{i}", case.label)
    above.set_ylabel("self-rank")
    above.set_yscale("log")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    above.legend(
        frameon=False, labelcolor=theme.ink, fontsize=7, loc="center right", bbox_to_anchor=(0.97, 0.36)
    )
    below.axhline(0, color=theme.faint, linewidth=0.6)
    below.set_ylabel("self-score, as a share\nof that at α = 0")
    below.set_ylim(-0.6, 1.6)
    below.set_xlabel("darkening α")


def _band(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    low, middle, high = np.nanpercentile(values, QUARTILES, axis=0)
    axes.fill_between(ALPHAS, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(ALPHAS, middle, ".-", color=colour, label=label)


def _spectra(figure: Figure, theme: Theme, cases: Sequence[Case]) -> None:
    for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        values = np.array(case.each[0]["eigenvalues"])
        values = values[np.abs(values).argsort()[::-1]]
        values = values[np.abs(values) > np.finfo(np.float32).eps * np.abs(values[0])]
        place, negative = np.arange(1, len(values) + 1), values < 0
        for mask, colour, label in (
            (~negative, theme.helpful[1], "positive"),
            (negative, theme.harmful[1], f"negative ({negative.sum()})"),
        ):
            axes.plot(place[mask], np.abs(values[mask]), ".", color=colour, markersize=2.5, label=label)
        axes.set_yscale("log")
        axes.set_title(case.subject, fontsize=8, color=theme.ink)
        axes.set_xlabel("rank by |λ|")
        axes.set_ylabel("|λ|")
        axes.legend(frameon=False, labelcolor=theme.ink, loc="lower left")
