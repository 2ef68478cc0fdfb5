"""Tables and findings of the experiment."""

from __future__ import annotations

import numpy as np

from ..outcome import Finding, Outcome, Table
from ..statistics import bootstrap
from .case import Case, Seeds
from .drawings import fresh_loss

OURS = ("Gauss-Newton", "Hessian")
THEIRS = ("random", "embedding similarity")
LEVEL = 0.05
# Of the mean test loss: what counts as nothing.
NOTHING = 0.01


def conclude(seeds: Seeds) -> Outcome:
    """Every learner's interventions, and the comparisons that were to be made."""
    cases = [Case(learner, seeds) for learner in next(iter(seeds.values()))]
    return Outcome(
        [_targets(seeds), *(_interventions(case) for case in cases), _comparisons(cases)],
        [fresh_loss(cases)],
        [*_findings(cases), *(_cost(case) for case in cases)],
    )


def _compared(cases: list[Case]) -> list[tuple[Case, str, str, str]]:
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


def _interventions(case: Case) -> Table:
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


def _comparisons(cases: list[Case]) -> Table:
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


def _findings(cases: list[Case]) -> list[Finding]:
    """Of each learner, influence against chance and against embedding, over all interventions."""
    comparisons = len(_compared(cases))
    return [_better(case, OURS[0], theirs, comparisons) for case in cases for theirs in THEIRS]


def _better(case: Case, ours: str, theirs: str, comparisons: int) -> Finding:
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


def _cost(case: Case) -> Finding:
    """Whether what helps a target is paid for by the others: any intervention refutes it, all have to bear it out."""
    intervals, parts = [], []
    for intervention in case.interventions:
        change = case.of("others_loss", intervention, OURS[0])
        low, high = bootstrap(change)
        intervals.append((low, high))
        parts.append(f"{intervention} {change.mean():+.4f} [{low:+.4f}, {high:+.4f}]")
    bound = NOTHING * case.loss
    dear, free = any(low > 0 for low, _ in intervals), all(high < bound for _, high in intervals)
    verdict = "does not hold" if dear else "holds" if free else "undecided"
    return Finding(
        f"{case.learner}: interventions chosen by {OURS[0]} influence for one task cost the other test tasks nothing: "
        f"no rise of their loss shows, and one of {NOTHING:.0%} of the mean test loss is ruled out.",
        verdict,
        "Change of the others' mean loss, with its 95% interval over targets, the others being what they are: "
        f"{'; '.join(parts)}. (Refuted by an interval above zero; to hold, each is to end below {bound:.4f}.)",
    )
