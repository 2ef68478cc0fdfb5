"""Two pictures: how much faster than whom, and how cost grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from ..files import replacing
from ..report.figures import DPI, LIGHT, style
from .measure import OURS, Row
from .scaling import Power

# What a baseline is called by, its colour, and how the names of its formulations begin.
FAMILIES = (
    ("curvlinops", LIGHT.harmful[1], ("curvlinops",)),
    ("torch.func", LIGHT.helpful[1], ("torch.func", "vmap(grad)")),
    ("autograd loop", LIGHT.ink, ("autograd loop",)),
)
OUTLINED = [withStroke(linewidth=2, foreground=LIGHT.paper)]


def ratios(rows: list[Row], path: Path) -> bool:
    """Each baseline's time over ours, a line a comparison; False, and no file, if there is none."""
    rows = [row for row in rows if len(row["timings"]) > 1]
    if not rows:
        return False

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(1, color=LIGHT.ink, linewidth=0.8)
        for y, row in enumerate(rows):
            _compare(axes, y, row)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.5), max(high, 2) * 1.6)  # room for the figures beside the marks
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first at the top
        axes.set_yticks(range(len(rows)), labels=[_in_two_lines(row["work"]) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=LIGHT.faint, linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("their time over ours; right of 1×, tlxml_fast is faster")
        figure.legend(handles=_ratio_legend(rows), loc="outside upper center", ncols=6, frameon=False)

    _save(draw, path, 8.4, 1.1 + 0.42 * len(rows))
    return True


def scaling(rows: list[Row], path: Path) -> bool:
    """Seconds against what was varied, and the fitted powers; False, and no file, if there is none."""
    rows = [row for row in rows if "points" in row]
    if not rows:
        return False
    across = 2 if len(rows) > 1 else 1
    down = -(-len(rows) // across)

    def draw(figure: Figure) -> None:
        for i, row in enumerate(rows):
            _panel(figure.add_subplot(down, across, i + 1), row)

    _save(draw, path, 4.2 * across, 3.1 * down)
    return True


# ---- inside ---------------------------------------------------------------------------------------------------


def _compare(axes: Axes, y: int, row: Row) -> None:
    """One line of the first picture; each baseline that has a goal in a lane of its own, if there are several."""
    timings = row["timings"]
    ratios = {name: t["median"] / timings[OURS]["median"] for name, t in timings.items() if name != OURS}
    goals = [goal for goal in row["goals"] if goal["against"] in ratios]
    lanes = dict.fromkeys(ratios, y)
    tall = 0.32 / max(1, len(goals))
    for i, goal in enumerate(goals):
        lane = lanes[goal["against"]] = y + tall * (2 * i - len(goals) + 1)
        for bound, width in ((goal["least"], 1.0), (goal["aim"], 2.4)):
            edge, colour = [lane - 0.85 * tall, lane + 0.85 * tall], _colour(goal["against"])
            axes.plot([bound] * 2, edge, color=colour, linewidth=width, solid_capstyle="butt")
    axes.plot([min(ratios.values()), max(ratios.values())], [y, y], color=LIGHT.faint, linewidth=1, zorder=1)
    for name, ratio in ratios.items():
        colour = _colour(name)
        inside = LIGHT.paper if timings[name]["composed"] else colour
        axes.plot(ratio, lanes[name], "o", color=colour, markerfacecolor=inside, markersize=5, zorder=3)
    for name in {goal["against"] for goal in goals} | {min(ratios, key=ratios.__getitem__)}:
        ratio = ratios[name]
        text = f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2g}×"
        place = {"xytext": (0, -5), "textcoords": "offset points", "ha": "center", "va": "top", "zorder": 4}
        if lanes[name] < y:
            place |= {"xytext": (0, 5), "va": "bottom"}
        axes.annotate(
            text, (ratio, lanes[name]), fontsize=7, color=_colour(name), path_effects=OUTLINED, **place
        )


def _colour(name: str) -> str:
    return next(colour for _, colour, beginnings in FAMILIES if name.startswith(beginnings))


def _ratio_legend(rows: list[Row]) -> list[Line2D]:
    timings = [(name, t) for row in rows for name, t in row["timings"].items() if name != OURS]
    dot = {"marker": "o", "linestyle": "none", "markersize": 5}
    shown = [
        Line2D([], [], color=colour, label=family, **dot)
        for family, colour, beginnings in FAMILIES
        if any(name.startswith(beginnings) for name, _ in timings)
    ]
    if any(t["composed"] for _, t in timings):
        hollow = {"color": LIGHT.ink, "markerfacecolor": LIGHT.paper}
        shown.append(Line2D([], [], label="composed of measured parts", **hollow, **dot))
    tick = {"marker": "|", "linestyle": "none", "markersize": 9, "color": LIGHT.ink}
    return [
        *shown,
        Line2D([], [], label="asked: at least", markeredgewidth=1, **tick),
        Line2D([], [], label="aim", markeredgewidth=2.4, **tick),
    ]


def _panel(axes: Axes, row: Row) -> None:
    """One sweep."""
    for name, points in row["points"].items():
        colour = LIGHT.helpful[1] if name == OURS else LIGHT.harmful[1]
        label = name
        if name in row["fits"]:
            power = Power(**row["fits"][name])
            label = f"{_short(name)}: exponent {power.exponent:.2f} (r² {power.r2:.3f})"
            ends = (power.start, power.end)
            fitted = [1e3 * power.coefficient * x**power.exponent for x in ends]
            axes.plot(ends, fitted, color=colour, linewidth=1, alpha=0.7, zorder=1)
        x, y = zip(*points, strict=True)
        axes.plot(x, [1e3 * seconds for seconds in y], "o", color=colour, markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.25)  # room for the legend
    xs = [x for x, _ in next(iter(row["points"].values()))]
    axes.set_xticks(xs, labels=[f"{x:,.0f}" for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=LIGHT.faint, linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    starts = {fit["start"] for fit in row["fits"].values() if fit["start"] > xs[0]}
    axes.set_xlabel(row["quantity"] + "".join(f", fitted from {start:,.0f} on" for start in starts))
    axes.set_ylabel("ms a product")
    axes.set_title(row["fixed"], loc="left", fontsize=8)
    axes.legend(frameon=False, labelcolor=LIGHT.ink, loc="upper left", fontsize=7, handletextpad=0.3)


def _short(name: str) -> str:
    return name.partition(",")[0]


def _in_two_lines(name: str) -> str:
    """Broken at the comma nearest the middle."""
    commas = [i for i, letter in enumerate(name) if name[i : i + 2] == ", "]
    if not commas:
        return name
    middle = min(commas, key=lambda i: abs(i - len(name) / 2))
    return f"{name[: middle + 1]}\n{name[middle + 2 :]}"


def _save(draw: Callable[[Figure], None], path: Path, width: float, height: float) -> None:
    with rc_context(style(LIGHT)):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        draw(figure)
        FigureCanvasAgg(figure)
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
