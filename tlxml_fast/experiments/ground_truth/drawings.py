"""Figures of the experiment."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...report.figures import Theme
from ..intervals import draw_intervals, legend_above
from ..outcome import Drawing
from .analysis import TRUTHS, Seeds, agreement, both, detection, learners, names, of, sizes
from .conclusions import GAUSS_NEWTON, HESSIAN


def drawings(seeds: Seeds) -> list[Drawing]:
    """Agreement by scoring, predicted against real changes, detection."""
    rows = len(names(seeds))
    return [
        Drawing(
            "agreement",
            "Spearman's ρ between predicted and real changes of a test task's loss when k training tasks are removed: "
            "mean over test tasks with its 95% bootstrap interval. Real is retrained from the minimum, retrained from "
            "the initialisation, or the proximal Bregman response.",
            lambda figure, theme: _agreement(figure, theme, seeds),
            width=7.2,
            height=1.0 + 0.24 * rows,
        ),
        Drawing(
            "leave-one-out",
            "Changes of the test tasks' losses when one training task is removed: predicted, against those by "
            "retraining from the minimum and by the proximal Bregman response. On the line they are equal; the "
            "outermost hundredth is not shown.",
            lambda figure, theme: _scatter(figure, theme, seeds),
            height=5.4,
        ),
        Drawing(
            "detection",
            "Area under the ROC curve at finding training tasks with random query labels: by their influence on "
            "themselves, and by their mean influence on clean test tasks. 0.5 is chance.",
            lambda figure, theme: _detection(figure, theme, seeds),
            height=0.9 + 0.2 * rows,
        ),
    ]


def _colours(theme: Theme) -> dict[str, str]:
    return dict(zip(TRUTHS, (theme.ink, theme.harmful[1], theme.helpful[1]), strict=True))


def _agreement(figure: Figure, theme: Theme, seeds: Seeds) -> None:
    shown = names(seeds)
    place = np.arange(len(shown))[::-1]
    columns = figure.subplots(1, len(sizes(seeds)), sharey=True, squeeze=False)[0]
    for axes, k in zip(columns, sizes(seeds), strict=True):
        axes.axvline(0, color=theme.faint, linewidth=0.6)
        for i, (truth, colour) in enumerate(_colours(theme).items()):
            found = [of(agreement(seeds, k, truth, name).spearman) for name in shown]
            draw_intervals(axes, place + 0.22 * (1 - i), np.array(found, float), colour, TRUTHS[truth])
        axes.set_xlim(-0.75, 1.05)
        axes.set_title(f"k = {k}", fontsize=8, color=theme.ink)
        axes.set_xlabel("ρ")
    columns[0].set_yticks(place, labels=shown)
    legend_above(figure, columns[0], 3, theme)


def _scatter(figure: Figure, theme: Theme, seeds: Seeds) -> None:
    grid = figure.subplots(2, 2)
    k = sizes(seeds)[0]
    for row, name in zip(grid, (HESSIAN, GAUSS_NEWTON), strict=True):
        for axes, truth in zip(row, ("warm", "bregman"), strict=True):
            predicted, real = both(seeds, k, truth, name)
            x, y = (float(np.percentile(np.abs(v), 99)) or 1.0 for v in (predicted, real))
            axes.axline((0, 0), slope=1, color=theme.faint, linewidth=0.8)
            axes.plot(
                predicted,
                real,
                ".",
                color=_colours(theme)[truth],
                markersize=2,
                alpha=0.35,
                markeredgewidth=0,
            )
            axes.set_xlim(-x, x)
            axes.set_ylim(-y, y)
            axes.set_xlabel(f"predicted by {name}")
            axes.set_ylabel(TRUTHS[truth])
            axes.ticklabel_format(style="sci", scilimits=(-2, 2))


def _detection(figure: Figure, theme: Theme, seeds: Seeds) -> None:
    shown = names(seeds)
    place = np.arange(len(shown))[::-1]
    columns = figure.subplots(1, len(learners(seeds)), sharey=True, squeeze=False)[0]
    marks = (
        ("own", "o", theme.helpful[1], "on itself"),
        ("mean", "D", theme.harmful[1], "on clean test tasks"),
    )
    for axes, learner in zip(columns, learners(seeds), strict=True):
        axes.axvline(0.5, color=theme.faint, linewidth=0.8)
        for by, marker, colour, label in marks:
            for name, y in zip(shown, place, strict=True):
                found = detection(seeds, learner, name, by)
                if found is not None:
                    axes.plot(
                        found.auc, np.full(len(found.auc), y), marker, color=colour, markersize=4, alpha=0.8
                    )
            axes.plot([], [], marker, color=colour, markersize=4, label=label)
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(learner, fontsize=8, color=theme.ink)
        axes.set_xlabel("AUC")
    columns[0].set_yticks(place, labels=shown)
    legend_above(figure, columns[0], 2, theme)
