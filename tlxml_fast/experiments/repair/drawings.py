"""Figure of the experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ...report.figures import Theme
from ..intervals import draw_intervals, legend_above
from ..outcome import Drawing
from ..statistics import bootstrap
from .case import Case


def fresh_loss(cases: Sequence[Case]) -> Drawing:
    """What became of the targets' loss on fresh queries."""
    return Drawing(
        "fresh-loss",
        "Change of a repaired task's loss on queries that had no part in choosing the training tasks, by "
        "intervention and by what chose them: mean over targets with its 95% bootstrap interval. Below zero is "
        "better.",
        lambda figure, theme: _draw(figure, theme, cases),
        width=7.2,
        height=3.4,
    )


def _draw(figure: Figure, theme: Theme, cases: Sequence[Case]) -> None:
    columns = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    colours = (theme.helpful[2], theme.helpful[1], theme.helpful[0], theme.harmful[1], theme.faint)
    for axes, case in zip(columns, cases, strict=True):
        place = np.arange(len(case.interventions))[::-1]
        axes.axvline(0, color=theme.faint, linewidth=0.6)
        for i, (chooser, colour) in enumerate(zip(case.choosers, colours, strict=True)):
            values = [case.of("fresh_loss", intervention, chooser) for intervention in case.interventions]
            found = np.array([(v.mean(), *bootstrap(v)) for v in values])
            draw_intervals(axes, place + 0.15 * (2 - i), found, colour, chooser)
        axes.set_title(case.learner, fontsize=8, color=theme.ink)
        axes.set_xlabel("change of loss, fresh queries")
    columns[0].set_yticks(place, labels=case.interventions)
    legend_above(figure, columns[0], 5, theme)
