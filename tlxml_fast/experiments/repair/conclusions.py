"""Tables, figure and findings of the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import wilcoxon

from ...report.figures import Theme
from ..outcome import Drawing, Finding, Outcome, Table
from ..statistics import bootstrap

OURS = ("Gauss-Newton", "Hessian")
THEIRS = ("random", "embedding similarity")
LEVEL = 0.05

Seeds = Mapping[int, dict[str, Any]]


def conclude(seeds: Seeds) -> Outcome:
    """Every learner's interventions, and the comparisons that were to be made."""
    cases = [_Case(learner, seeds) for learner in next(iter(seeds.values()))]
    return Outcome(
        [_targets(seeds), *(_interventions(case) for case in cases), _comparisons(cases)],
        [
            Drawing(
                "fresh-loss",
                "Change of a repaired task's loss on queries that had no part in choosing the training tasks, by "
                "intervention and by what chose them: mean over targets with its 95% bootstrap interval. Below zero is "
                "better.",
                lambda figure, theme: _draw(figure, theme, cases),
                width=7.2,
                height=3.4,
            )
        ],
        [*_findings(cases), *(_cost(case) for case in cases)],
    )


class _Case:
    """The outcomes of a learner, the targets of all seeds in one row."""

    def __init__(self, learner: str, seeds: Seeds):
        self.learner = learner
        self.outcomes = [each for numbers in seeds.values() for each in numbers[learner]["outcomes"]]
        self.interventions = list(dict.fromkeys(each["intervention"] for each in self.outcomes))
        self.choosers = list(dict.fromkeys(each["chosen by"] for each in self.outcomes))

    def of(self, what: str, intervention: str, chooser: str) -> np.ndarray:
        """A number for each target, in the same order whatever the intervention and the chooser, [N]."""
        rows = (o for o in self.outcomes if (o["intervention"], o["chosen by"]) == (intervention, chooser))
        return np.array([row[what] for row in rows], float)

    def p(self, intervention: str, ours: str, theirs: str) -> float:
        """Wilcoxon's signed-rank test of the targets' changes of fresh loss, two-sided; 1 where all are equal."""
        difference = self.of("fresh_loss", intervention, ours) - self.of("fresh_loss", intervention, theirs)
        return float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def _compared(cases: list[_Case]) -> list[tuple[_Case, str, str, str]]:
    return [
        (case, intervention, ours, theirs)
        for case in cases
        for intervention in case.interventions
        for ours in OURS
        for theirs in THEIRS
    ]


# ---- tables ---------------------------------------------------------------------------------------------


def _targets(seeds: Seeds) -> Table:
    rows = []
    for seed, numbers in seeds.items():
        for learner, found in numbers.items():
            test = {key: np.array(values) for key, values in found["test"].items()}
            chosen = found["targets"]
            row = [seed, learner, found["train"], found["k"], len(chosen), len(test["seen_losses"])]
            for where in (chosen, slice(None)):
                row += [float(test[key][where].mean()) for key in ("fresh_losses", "fresh_accuracies")]
            rows.append(row)
    return Table(
        "What is to be repaired (a row a seed and learner)",
        [
            "seed",
            "learner",
            "training tasks",
            "k",
            "targets",
            "test tasks",
            "loss, targets",
            "accuracy, targets",
            "loss, all",
            "accuracy, all",
        ],
        rows,
        "Targets are the test tasks of highest loss on the seen half of their queries; loss and accuracy are those of "
        "the fresh half.",
    )


def _interventions(case: _Case) -> Table:
    rows = []
    for intervention in case.interventions:
        for chooser in case.choosers:

            def share(what: str, half: str, at: tuple[str, str] = (intervention, chooser)) -> float:
                errors = case.of(f"{half}_errors", *at).sum()
                return float(case.of(f"{half}_{what}", *at).sum() / errors) if errors else float("nan")

            fresh = case.of("fresh_loss", intervention, chooser)
            low, high = bootstrap(fresh)
            rows.append(
                [
                    intervention,
                    chooser,
                    share("corrected", "seen"),
                    share("corrected", "fresh"),
                    share("broken", "fresh"),
                    float(case.of("seen_loss", intervention, chooser).mean()),
                    f"{fresh.mean():+.3f} [{low:+.3f}, {high:+.3f}]",
                    float((fresh < 0).mean()),
                    float(case.of("others_loss", intervention, chooser).mean()),
                    float(case.of("others_accuracy", intervention, chooser).mean()),
                    float(case.of("moved", intervention, chooser).mean()),
                ]
            )
    return Table(
        f"{case.learner}: interventions",
        [
            "intervention",
            "chosen by",
            "seen corrected",
            "fresh corrected",
            "fresh broken",
            "seen loss",
            "fresh loss",
            "targets better",
            "others' loss",
            "others' accuracy",
            "moved",
        ],
        rows,
        "Corrected and broken: mispredicted queries that are right afterwards, and right ones that are not, both as a "
        "share of the mispredicted ones before. Losses and accuracies are changes, means over targets; others are all "
        "other test tasks; moved is ‖ω − ω̂‖/‖ω̂‖. The fresh half of the queries had no part in the choice.",
    )


def _comparisons(cases: list[_Case]) -> Table:
    compared = _compared(cases)
    rows = []
    for case, intervention, ours, theirs in compared:
        mine, other = (case.of("fresh_loss", intervention, chooser) for chooser in (ours, theirs))
        p = case.p(intervention, ours, theirs)
        rows.append(
            [
                case.learner,
                intervention,
                ours,
                theirs,
                float((mine - other).mean()),
                float((mine < other).mean()),
                p,
                min(1.0, p * len(compared)),
            ]
        )
    return Table(
        "Influence against random tasks and against the nearest, target by target",
        [
            "learner",
            "intervention",
            "influence",
            "other",
            "difference",
            "targets better",
            "p",
            "p, Bonferroni",
        ],
        rows,
        "Difference of the changes of fresh loss, below zero where influence does better. Wilcoxon's signed-rank test "
        f"over the targets, two-sided; Bonferroni over these {len(rows)} comparisons. The nearest task by embedding "
        "counts as the most helpful, the farthest as the most harmful.",
    )


# ---- findings -------------------------------------------------------------------------------------------


def _findings(cases: list[_Case]) -> list[Finding]:
    """Of each learner, influence against chance and against embedding, over all interventions."""
    comparisons = len(_compared(cases))
    return [_better(case, OURS[0], theirs, comparisons) for case in cases for theirs in THEIRS]


def _better(case: _Case, ours: str, theirs: str, comparisons: int) -> Finding:
    lower, higher, parts = [], [], []
    for intervention in case.interventions:
        mine, other = (case.of("fresh_loss", intervention, chooser) for chooser in (ours, theirs))
        p = min(1.0, comparisons * case.p(intervention, ours, theirs))
        lower.append(p < LEVEL and mine.mean() < other.mean())
        higher.append(p < LEVEL and mine.mean() > other.mean())
        parts.append(
            f"{intervention} {mine.mean():+.3f} and {other.mean():+.3f}, lower for {(mine < other).mean():.0%} of "
            f"{len(mine)} targets, p = {p:.2g}"
        )
    return Finding(
        f"{case.learner}: interventions on tasks chosen by {ours} influence lower a target's loss on fresh queries "
        f"more than on tasks chosen by {'chance' if theirs == THEIRS[0] else 'embedding'}.",
        "holds" if all(lower) else "does not hold" if any(higher) else "undecided",
        "; ".join(parts) + ". (p after Bonferroni; to hold, each is to be below 0.05.)",
    )


def _cost(case: _Case) -> Finding:
    """Whether what helps a target is paid for by the others."""
    intervals, parts = [], []
    for intervention in case.interventions:
        change = case.of("others_loss", intervention, OURS[0])
        low, high = bootstrap(change)
        intervals.append((low, high))
        parts.append(f"{intervention} {change.mean():+.4f} [{low:+.4f}, {high:+.4f}]")
    free, dear = (all(high <= 0 for _, high in intervals), all(low > 0 for low, _ in intervals))
    verdict = "holds" if free else "does not hold" if dear else "undecided"
    return Finding(
        f"{case.learner}: interventions chosen by {OURS[0]} influence for one task cost the other test tasks nothing.",
        verdict,
        "Change of the others' mean loss, with its 95% interval over targets: " + "; ".join(parts) + ".",
    )


# ---- drawing --------------------------------------------------------------------------------------------


def _draw(figure: Figure, theme: Theme, cases: list[_Case]) -> None:
    columns = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    colours = (theme.helpful[2], theme.helpful[1], theme.helpful[0], theme.harmful[1], theme.faint)
    for axes, case in zip(columns, cases, strict=True):
        place = np.arange(len(case.interventions))[::-1]
        axes.axvline(0, color=theme.faint, linewidth=0.6)
        for i, (chooser, colour) in enumerate(zip(case.choosers, colours, strict=True)):
            values = [case.of("fresh_loss", intervention, chooser) for intervention in case.interventions]
            means = np.array([v.mean() for v in values])
            low, high = np.array([bootstrap(v) for v in values]).T
            axes.errorbar(
                means,
                place + 0.15 * (2 - i),
                xerr=np.abs(np.array([means - low, high - means])),
                fmt="o",
                markersize=3,
                linewidth=1,
                color=colour,
                label=chooser,
            )
        axes.set_title(case.learner, fontsize=8, color=theme.ink)
        axes.set_xlabel("change of loss, fresh queries")
    columns[0].set_yticks(place, labels=case.interventions)
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, labelcolor=theme.ink)
