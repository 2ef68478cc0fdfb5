"""Rows of means with their intervals, as several experiments draw them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..report.figures import Theme


def draw_intervals(axes: Axes, place: np.ndarray, found: np.ndarray, colour: str, label: str) -> None:
    """A dot and a line for every row: found [rows, 3], mean, low and high, at the heights `place` [rows]."""
    mean, low, high = found.T
    axes.errorbar(
        mean,
        place,
        xerr=np.abs(np.array([mean - low, high - mean])),
        fmt="o",
        markersize=3,
        linewidth=1,
        color=colour,
        label=label,
    )


def legend_above(figure: Figure, axes: Axes, columns: int, theme: Theme) -> None:
    """The legend of one panel for all of them, above the panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, labelcolor=theme.ink
    )
