"""The plots: each rendered for light and dark, wide and narrow, so that its text is legible everywhere."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from ..scores import Scores
from .text import number, shortened

DPI = 160  # two pixels to a CSS pixel, nearly
PERCENTILE = 98


@dataclass(frozen=True)
class Theme:
    """Colours of one colour scheme; helpful and harmful are those of report.css."""

    ink: str
    faint: str
    paper: str
    helpful: tuple[str, ...]  # from faint to strong
    harmful: tuple[str, ...]

    def diverging(self, larger_is_better: bool) -> Colormap:
        """Low to high scores: helpful to harmful, or the reverse where larger is better."""
        colours = [*reversed(self.helpful), self.paper, *self.harmful]
        return LinearSegmentedColormap.from_list("influence", colours[::-1] if larger_is_better else colours)


LIGHT = Theme(
    "#1d2126", "#b9bec5", "#ffffff", ("#92c0de", "#2a6fad", "#0b3566"), ("#f4a98a", "#bd3327", "#67061b")
)
DARK = Theme(
    "#e4e6e9", "#565d66", "#15181c", ("#23506f", "#4b9bd3", "#b5dcf7"), ("#6e3327", "#dd6c50", "#ffcbb5")
)


class Plot(NamedTuple):
    """Data URIs of one plot, the CSS width and height of its wide form, and its alt text."""

    light: str
    dark: str
    narrow_light: str
    narrow_dark: str
    width: int
    height: int
    alt: str


def style(theme: Theme) -> dict[str, Any]:
    """Matplotlib's settings for every plot here and in the benchmark."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        "font.family": "sans-serif",
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        **dict.fromkeys(inked, theme.ink),
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
    }


def robust_limit(values: np.ndarray) -> float:
    """The 98th percentile of |values|; the greatest where that is zero, and 1 where all are."""
    magnitude = np.abs(values)
    return float(np.percentile(magnitude, PERCENTILE) or magnitude.max() or 1.0)


def heat_map(scores: Scores, rows: Sequence[int], columns: Sequence[int]) -> Plot:
    """Test × train, colours symmetric about zero, rows and columns in the order given, groups marked off."""
    values = scores.values.numpy()[np.ix_(rows, columns)]
    limit = robust_limit(values)
    test_groups = [scores.test.groups[i] for i in rows]
    train_groups = [scores.train.groups[j] for j in columns]
    ends = ("harmful ←", "→ helpful") if scores.larger_is_better else ("helpful ←", "→ harmful")

    def draw(figure: Figure, theme: Theme, narrow: bool) -> None:
        axes = figure.add_subplot()
        cmap = theme.diverging(scores.larger_is_better)
        image = axes.imshow(
            values, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        _mark_groups(axes, "x", train_groups, theme, 28 if narrow else 70)
        _mark_groups(axes, "y", test_groups, theme, 30)
        axes.set_xlabel(f"{len(columns):,} training tasks")
        axes.set_ylabel(f"{len(rows):,} test tasks")
        bar = figure.colorbar(
            image, ax=axes, location="top", shrink=0.7 if narrow else 0.45, aspect=32, pad=0.02, extend="both"
        )
        bar.set_label(f"{ends[0]}  score  {ends[1]}")
        bar.outline.set_visible(False)
        bar.set_ticks([-limit, 0, limit], labels=[number(-limit), "0", number(limit)])

    height = float(np.clip(1.6 + 0.075 * len(rows), 3.4, 7.5))
    alt = (
        f"Heat map of the scores of {len(columns)} training tasks (columns) on {len(rows)} test tasks "
        f"(rows), sorted by group; colours saturate at plus and minus {number(limit)}."
    )
    return render(draw, 8.4, height, alt)


def rank_curves(scores: Scores) -> Plot:
    """Each test task's scores from the most helpful training task to the most harmful, and their median."""
    descending = scores.larger_is_better
    ranked = scores.values.sort(dim=-1, descending=descending).values.numpy()
    limit = 1.6 * robust_limit(ranked)

    def draw(figure: Figure, theme: Theme, narrow: bool) -> None:
        axes = figure.add_subplot()
        rank = np.arange(1, ranked.shape[1] + 1)
        axes.axhline(0, color=theme.ink, linewidth=0.6)
        axes.plot(rank, ranked.T, color=theme.faint, linewidth=0.6, alpha=0.6)
        axes.plot(rank, np.median(ranked, 0), color=theme.ink, linewidth=1.6)
        axes.set_ylim(-limit, limit)
        axes.set_xlim(1, max(2, len(rank)))
        axes.set_xlabel("rank of the training task")
        axes.set_ylabel("score")
        low, high = (0.96, 0.04) if descending else (0.04, 0.96)
        for x, y, side, word, colour in (
            (0.02, low, "left", "most helpful", theme.helpful[1]),
            (0.98, high, "right", "most harmful", theme.harmful[1]),
        ):
            place = "bottom" if y < 0.5 else "top"
            axes.text(x, y, word, transform=axes.transAxes, ha=side, va=place, color=colour)

    alt = (
        f"Scores of {ranked.shape[1]} training tasks in order of rank, a thin line for each of "
        f"{ranked.shape[0]} test tasks and a thick line for their median."
    )
    return render(draw, 6.2, 2.9, alt)


def spectrum(eigenvalues: Sequence[float], damping: float | None) -> Plot:
    """|λ| in descending order on a logarithmic scale, negative eigenvalues marked, the damping as a line."""
    values = np.array(eigenvalues, dtype=float)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    rank = np.arange(1, len(values) + 1)
    negative = values < 0

    def draw(figure: Figure, theme: Theme, narrow: bool) -> None:
        axes = figure.add_subplot()
        for mask, marker, colour, label in (
            (values > 0, ".", theme.faint, "positive"),
            (negative, "x", theme.harmful[1], "negative"),
        ):
            if mask.any():
                axes.plot(rank[mask], np.abs(values[mask]), marker, color=colour, markersize=4, label=label)
        if damping is not None and damping > 0:
            axes.axhline(
                damping,
                color=theme.ink,
                linewidth=0.9,
                linestyle=(0, (4, 3)),
                label=f"damping {number(damping)}",
            )
        axes.set_yscale("log")
        axes.set_xlabel("rank by |λ|")
        axes.set_ylabel("|λ|")
        axes.legend(frameon=False, labelcolor=theme.ink, loc="lower left")

    zero = int((values == 0).sum())
    alt = f"{len(values)} eigenvalues by magnitude, logarithmic scale, {int(negative.sum())} of them negative"
    alt += f", {zero} zero and not drawn." if zero else "."
    return render(draw, 6.2, 2.9, alt)


def _mark_groups(axes: Axes, which: str, groups: list[str], theme: Theme, room: int) -> None:
    """Lines between groups and a label at the middle of each, where there is room for one."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    starts = [i for i in range(len(groups)) if i == 0 or groups[i] != groups[i - 1]]
    axis.set_ticks([])
    if len(starts) < 2:
        return
    line = axes.axvline if which == "x" else axes.axhline
    for start in starts[1:]:
        line(start - 0.5, color=theme.ink, linewidth=0.5, alpha=0.55)
    spans = list(zip(starts, [*starts[1:], len(groups)], strict=True))
    wide_enough = [(a, b) for a, b in spans if (b - a) / len(groups) >= 1 / room]
    axis.set_ticks(
        [(a + b - 1) / 2 for a, b in wide_enough],
        labels=[shortened(groups[a], 18) or "(no group)" for a, _ in wide_enough],
    )
    axis.set_tick_params(length=0)
    # about 0.07 inches a letter: labels that would run into each other stand upright
    width = axes.figure.get_figwidth() - 1
    upright = which == "x" and any(
        0.07 * (1 + min(18, len(groups[a]))) > width * (b - a) / len(groups) for a, b in wide_enough
    )
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a name with dollar signs is not a formula
        label.set_rotation(90 if upright else 0)


def render(draw: Callable[[Figure, Theme, bool], None], width: float, height: float, alt: str) -> Plot:
    """All four forms of a plot; the narrow one has about the height of the wide one, for a small screen."""
    uris = []
    for narrow in (False, True):
        for theme in (LIGHT, DARK):
            size = (3.6, min(height, 4.2)) if narrow else (width, height)
            # figures are made without pyplot: no global state, no window system
            with rc_context(style(theme)), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure = Figure(figsize=size, dpi=DPI, layout="constrained")
                draw(figure, theme, narrow)
                uris.append(_png(figure))
    return Plot(uris[0], uris[1], uris[2], uris[3], round(width * 100), round(height * 100), alt)


def _png(figure: Figure) -> str:
    """A figure as a data URI."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
