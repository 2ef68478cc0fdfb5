"""The picture of a damping sweep: rank stability and effective rank along the grid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import DPI, LIGHT, style

if TYPE_CHECKING:
    from ..sweep import DampingSweep

QUARTILES = (25, 50, 75)


def draw(sweep: DampingSweep, path: str | os.PathLike[str]) -> None:
    """Two panels over one axis of dampings; the effective rank only where the inverse knows it."""
    order = np.argsort(sweep.dampings)
    dampings = np.array(sweep.dampings)[order]
    stability = sweep.stability().numpy()[np.ix_(order, order)]
    ranks = [found and found["effective_rank"] for found in np.array(sweep.certificates, dtype=object)[order]]
    known = all(rank is not None for rank in ranks)
    with rc_context(style(LIGHT)):
        figure = Figure(figsize=(6.2, 4.4 if known else 2.9), dpi=DPI, layout="constrained")
        axes = figure.subplots(2 if known else 1, 1, sharex=True, squeeze=False)[:, 0]
        largest = len(dampings) - 1
        _band(axes[0], dampings, stability[:, largest], LIGHT.helpful[1], f"with λ = {dampings[-1]:.2g}")
        if largest:
            neighbours = np.stack([stability[i, i + 1] for i in range(largest)])
            _band(axes[0], dampings[:-1], neighbours, LIGHT.harmful[1], "with the next larger λ")
        axes[0].set_ylabel("rank correlation\nof a test task's scores")
        axes[0].legend(frameon=False, loc="lower right")
        if known:
            axes[1].plot(dampings, ranks, ".-", color=LIGHT.ink)
            axes[1].set_ylabel("effective rank")
            axes[1].set_ylim(bottom=0)
        axes[-1].set_xscale("log")
        axes[-1].set_xlabel("damping λ")
        figure.savefig(path)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    """The median over test tasks, and their quartiles around it."""
    low, middle, high = np.percentile(values, QUARTILES, axis=1)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, middle, ".-", color=colour, label=label)
