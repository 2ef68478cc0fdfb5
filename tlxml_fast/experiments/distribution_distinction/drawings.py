"""Effects of every case, and the generalisation gap beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...report.figures import Theme
from ..outcome import Drawing
from .cases import Case, corrected
from .conclusions import LEVEL, TITLES


def drawings(cases: Sequence[Case]) -> list[Drawing]:
    """Effects by weight decay, a panel a mixture; and effects against the gap."""
    mixtures = [name for name in TITLES if any(case.mixture == name for case in cases)]
    return [
        Drawing(
            "effects",
            "How much more helpful matching training tasks are than the others, in standard deviations over training "
            f"tasks (below zero: more helpful). Filled: p < {LEVEL:g} after Holm. Dashed: with augmented tasks.",
            partial(_effects, cases=cases, mixtures=mixtures),
            width=3.3 * len(mixtures) + 0.4,
            height=3.2,
        ),
        Drawing(
            "gap",
            "The same effects against the generalisation gap, train less test accuracy, one point a case.",
            partial(_gap, cases=cases, mixtures=mixtures),
            width=3.3 * len(mixtures) + 0.4,
            height=2.8,
        ),
    ]


def _effects(figure: Figure, theme: Theme, cases: Sequence[Case], mixtures: Sequence[str]) -> None:
    panels = figure.subplots(1, len(mixtures), sharey=True, squeeze=False)[0]
    learners = list(dict.fromkeys(case.learner for case in cases))
    decays = sorted({case.decay for case in cases})
    for axes, mixture in zip(panels, mixtures, strict=True):
        of_mixture = [case for case in cases if case.mixture == mixture]
        p = dict(zip(map(id, of_mixture), corrected(of_mixture), strict=True))
        for i, learner in enumerate(learners):
            for augmented in (False, True):
                line = [case for case in of_mixture if (case.learner, case.augmented) == (learner, augmented)]
                x = [decays.index(case.decay) + 0.06 * (i - 1) for case in line]
                style = "--" if augmented else "-"
                axes.plot(x, [case.effect for case in line], style, color=f"C{i}", linewidth=1)
                for at, case in zip(x, line, strict=True):
                    axes.plot(
                        at, case.effect, "o", color=f"C{i}", markersize=4.5, **_fill(p[id(case)], i, theme)
                    )
        axes.axhline(0, color=theme.ink, linewidth=0.6)
        axes.set_xticks(range(len(decays)), labels=[f"{decay:g}" for decay in decays])
        axes.set_xlabel("weight decay δ")
        axes.set_title(TITLES[mixture], fontsize=8, color=theme.ink)
    panels[0].set_ylabel("effect (negative: helps more)")
    _legend(panels[-1], learners, theme)


def _fill(p: float, i: int, theme: Theme) -> dict[str, str]:
    return {"markerfacecolor": f"C{i}" if p < LEVEL else theme.paper}


def _gap(figure: Figure, theme: Theme, cases: Sequence[Case], mixtures: Sequence[str]) -> None:
    panels = figure.subplots(1, len(mixtures), sharey=True, squeeze=False)[0]
    learners = list(dict.fromkeys(case.learner for case in cases))
    for axes, mixture in zip(panels, mixtures, strict=True):
        for case in cases:
            if case.mixture == mixture:
                axes.plot(
                    100 * case.gap, case.effect, "o", color=f"C{learners.index(case.learner)}", markersize=4
                )
        axes.axhline(0, color=theme.ink, linewidth=0.6)
        axes.set_xlabel("train less test accuracy, points")
        axes.set_title(TITLES[mixture], fontsize=8, color=theme.ink)
    panels[0].set_ylabel("effect")
    _legend(panels[-1], learners, theme)


def _legend(axes: Axes, learners: Sequence[str], theme: Theme) -> None:
    for i, learner in enumerate(learners):
        axes.plot([], [], "o", color=f"C{i}", label=learner, markersize=4)
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=7)
