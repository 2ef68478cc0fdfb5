"""What the mixtures say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...report.text import number, p_value, percent
from ..outcome import Finding, Table
from ..statistics import spearman
from .cases import DAMPING, PERMUTATIONS, Case, corrected

LEVEL = 0.05
CLAIMS = {
    "noise": "Regular training tasks help regular test tasks more than noise does.",
    "groups": "Training tasks of a test task's own script or alphabet help it more than those of others.",
}
TITLES = {
    "noise": "Regular tasks against noise",
    "groups": "A script's or alphabet's own tasks against the others",
}
# What rounding may change of a loss.
ROUNDING = 1e-4


def tables(cases: Sequence[Case]) -> list[Table]:
    """One for each mixture: effect, p-values, and the generalisation gap beside them."""
    return [
        _table(mixture, [case for case in cases if case.mixture == mixture])
        for mixture in CLAIMS
        if any(case.mixture == mixture for case in cases)
    ]


def findings(cases: Sequence[Case]) -> list[Finding]:
    """On both mixtures, on over-fitting, and on what class permutation changes."""
    found = [
        _own_helps(mixture, [case for case in cases if case.mixture == mixture])
        for mixture in CLAIMS
        if any(case.mixture == mixture for case in cases)
    ]
    return [*found, _over_fitting(cases), _permutation(cases)]


def _table(mixture: str, cases: Sequence[Case]) -> Table:
    rows = [
        [
            case.label,
            case.effect,
            p_value(case.p),
            p_value(p),
            percent(case.mean("fit", "train_accuracy")),
            percent(case.mean("fit", "test_accuracy")),
            case.mean("confidence"),
            case.mean("gradient_norm"),
        ]
        for case, p in zip(cases, corrected(cases), strict=True)
    ]
    seeds = len(cases[0].found)
    return Table(
        TITLES[mixture],
        [
            "learner, weight decay",
            "effect",
            "p",
            "p (Holm)",
            "train accuracy",
            "test accuracy",
            "confidence",
            "‖∇L‖",
        ],
        rows,
        "Effect: mean influence of matching training tasks less that of the others, in standard deviations over "
        f"training tasks; negative: they help more. p: {PERMUTATIONS:,} permutations of labels over training tasks "
        f"(over augmented families), two-sided, {seeds} seed{'s' if seeds > 1 else ''} combined by Stouffer; Holm over "
        f"the {len(cases)} rows. Accuracy on regular tasks. Gauss-Newton, damping {DAMPING:g} of the largest λ.",
    )


def _own_helps(mixture: str, cases: Sequence[Case]) -> Finding:
    p = corrected(cases)
    right = [case.effect < 0 and value < LEVEL for case, value in zip(cases, p, strict=True)]
    wrong = [case.effect > 0 and value < LEVEL for case, value in zip(cases, p, strict=True)]
    reversed_in = [case.label for case, bad in zip(cases, wrong, strict=True) if bad]
    said = (
        f"Significantly so (Holm, {LEVEL:g}) in {sum(right)} of {len(cases)} cases, significantly reversed in "
        f"{sum(wrong)}{': ' + '; '.join(reversed_in) if reversed_in else ''}; median effect "
        f"{number(float(np.median([case.effect for case in cases])))} standard deviations."
    )
    against = any(wrong) or (not any(right) and np.median([case.effect for case in cases]) >= 0)
    verdict = "holds" if all(right) else "does not hold" if against else "undecided"
    return Finding(CLAIMS[mixture], verdict, said)


def _over_fitting(cases: Sequence[Case]) -> Finding:
    """The paper reads a reversed order as over-fitting."""
    noisy = [case for case in cases if case.mixture == "noise"]
    rho = float(spearman([case.effect for case in noisy], [case.gap for case in noisy]))
    backwards = [case for case in noisy if case.effect > 0]
    gaps = [np.median([case.gap for case in chosen]) for chosen in (noisy, backwards) if chosen]
    said = f"ρ between effect and gap over {len(noisy)} cases: {number(round(rho, 3))}"
    if backwards:
        said += f"; median gap {percent(gaps[1])} in the {len(backwards)} reversed cases, {percent(gaps[0])} in all"
    else:
        said += "; no case has the reversed order"
    verdict = "holds" if rho > 0.5 and backwards else "does not hold" if rho < 0 else "undecided"
    return Finding("A reversed order goes with over-fitting, as the paper reads it.", verdict, said + ".")


def _permutation(cases: Sequence[Case]) -> Finding:
    proto = max(case.mean("permutation") for case in cases if case.learner.startswith("ProtoNet"))
    maml = min(case.mean("permutation") for case in cases if case.learner.startswith("MAML"))
    return Finding(
        "Renaming the classes of a task changes nothing for a ProtoNet, and does for MAML.",
        "holds" if proto < ROUNDING < maml else "does not hold",
        f"Largest relative change of a training loss: {number(float(f'{proto:.2g}'))} of a ProtoNet, at least "
        f"{number(float(f'{maml:.2g}'))} of MAML. So for a ProtoNet augmentation is rotations alone.",
    )
