"""What the self-ranks say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...report.text import number, percent
from ..outcome import Finding, Table
from ..statistics import spearman
from .cases import DAMPING, Case

# A p-value below it counts as significant, and a finding names the p-value itself.
LEVEL = 0.05
# "All rank themselves first" is held to be so from this share on.
NEARLY_ALL = 0.95


def tables(cases: Sequence[Case]) -> list[Table]:
    """By kept directions, by darkening, the spectra, and who ranks itself badly."""
    return [_first(cases), _darkening(cases), _spectra(cases), *_bad_ranks(cases)]


def findings(cases: Sequence[Case]) -> list[Finding]:
    """On the paper's claims, and on what batch normalisation does to one of them."""
    darkened = [case for case in cases if not case.images]
    found = [_all_first(cases), _more_directions(cases)]
    found += [_gets_worse(darkened, "self_scores", "score"), _gets_worse(darkened, "self_ranks", "rank")]
    if len(darkened) < len(cases):
        found.append(_not_seen([case for case in cases if case.images]))
    found.append(_bad_is_hard(cases))
    return [*found, _indefinite([case for case in cases if case.exact])]


def _first(cases: Sequence[Case]) -> Table:
    ranks = sorted({rank for case in cases for rank in case.ranks})
    columns = [*ranks, Case.ALL, None]
    rows = [
        [
            case.label,
            *(percent(case.first(point)) if point in case.points else None for point in columns),
            float(case.own("self_ranks", None).max()),
        ]
        for case in cases
    ]
    return Table(
        "Training tasks that rank themselves first, by the eigen-directions kept",
        ["learner, curvature", *(f"{rank:,}" for rank in ranks), "all", "damped", "worst rank, damped"],
        rows,
        f"Of {cases[0].tasks} training tasks a seed; chance gives {percent(1 / cases[0].tasks)}. All: those above "
        f"rounding to float32. Negative directions are dropped. Damped: by {DAMPING:g} of the largest |λ|.",
    )


def _darkening(cases: Sequence[Case]) -> Table:
    trends = ["τ", "p", "tasks with τ > 0"]
    return Table(
        "Darkening the test task by α from 0 to 1",
        ["learner, curvature", *(f"self-rank: {t}" for t in trends), *(f"self-score: {t}" for t in trends)],
        [[case.label, *case.trend("self_ranks"), *case.trend("self_scores")] for case in cases],
        "Kendall's τ between α and the mean over tasks, by the damped inverse; two-sided p. τ > 0: the darker a task, "
        "the worse its rank and score. Empty where nothing changes. All points of a curve are of the same tasks: p is "
        "of its shape.",
    )


def _spectra(cases: Sequence[Case]) -> Table:
    rows = [
        [
            case.label,
            len(each["eigenvalues"]),
            negative,
            max(each["eigenvalues"]),
            min(each["eigenvalues"]),
            percent(found["fit"]["train_accuracy"]),
            percent(found["fit"]["test_accuracy"]),
        ]
        for case in cases
        for found, each, negative in zip(case.found, case.each, case.negative(), strict=True)
    ]
    return Table(
        "Spectra, and how well the learner generalises; a row a seed",
        [
            "learner, curvature",
            "parameters",
            "negative",
            "largest λ",
            "smallest λ",
            "train accuracy",
            "test accuracy",
        ],
        rows,
        "Negative beyond rounding to float32. The paper reports 92 negative eigenvalues of 1,285.",
    )


def _bad_ranks(cases: Sequence[Case]) -> list[Table]:
    rows = [
        [case.label, "damped" if point is None else "all" if point == Case.ALL else f"{point:,}", *found]
        for case in cases
        for point, found in _badly_ranked(case).items()
    ]
    title = "Are tasks with bad self-ranks those of high loss or low confidence?"
    columns = ["learner, curvature", "directions kept", "ρ(self-rank, loss)", "ρ(self-rank, confidence)"]
    note = "Spearman's ρ over training tasks, where at least one in twenty does not rank itself first."
    return [Table(title, columns, rows, note)] if rows else []


def _badly_ranked(case: Case) -> dict[int | None, tuple[float, float]]:
    """ρ of the self-rank with loss and with confidence, at the points where self-ranks are not all but perfect."""
    losses = np.concatenate([found["losses"] for found in case.found])
    sure = np.concatenate([found["confidences"] for found in case.found])
    return {
        point: (float(spearman(own, losses)), float(spearman(own, sure)))
        for point in case.points
        if case.first(point) <= NEARLY_ALL and (own := case.own("self_ranks", point)) is not None
    }


def _bad_is_hard(cases: Sequence[Case]) -> Finding:
    """A task with a small gradient has a small score, whatever the curvature: the easy ones."""
    rho = np.array([pair for case in cases for pair in _badly_ranked(case).values()]).reshape(-1, 2)
    claim = "Tasks with bad self-ranks are those of high loss and low confidence."
    if not len(rho):
        return Finding(claim, "undecided", "Nearly all tasks rank themselves first, by every inverse.")
    with_loss, with_confidence = (_shown(value) for value in np.nanmedian(rho, 0))
    hard, easy = (rho[:, 0] > 0) & (rho[:, 1] < 0), (rho[:, 0] < 0) & (rho[:, 1] > 0)
    opposite = easy.mean() > 0.5
    return Finding(
        claim,
        "holds" if hard.all() else "does not hold" if opposite else "undecided",
        f"Median ρ of the self-rank with the loss {with_loss}, with the confidence {with_confidence}, over {len(rho)} "
        f"cases and numbers of directions; {hard.sum()} of these are as claimed and {easy.sum()} the opposite"
        + (
            ": tasks that others help more than they do themselves are easy ones, of small gradients."
            if opposite
            else "."
        ),
    )


def _all_first(cases: Sequence[Case]) -> Finding:
    shares = {case.label: case.first(None) for case in cases}
    said = "; ".join(f"{label}: {percent(share)}" for label, share in shares.items())
    return Finding(
        "By the damped inverse, training tasks are the most helpful to themselves.",
        "holds" if min(shares.values()) >= NEARLY_ALL else "does not hold",
        f"First for themselves: {said}. (Held to be so where every case has {percent(NEARLY_ALL)}.)",
    )


def _more_directions(cases: Sequence[Case]) -> Finding:
    ends = {case.label: (case.ranks[0], case.first(case.ranks[0]), case.first(Case.ALL)) for case in cases}
    rises = [last > first for _, first, last in ends.values()]
    said = "; ".join(
        f"{label}: {percent(first)} first with {rank} directions, {percent(last)} with all"
        for label, (rank, first, last) in ends.items()
    )
    return Finding(
        "A few eigen-directions are not enough: more tasks rank themselves first with all of them.",
        "holds" if all(rises) else "does not hold" if not any(rises) else "undecided",
        f"{said}.",
    )


def _gets_worse(cases: Sequence[Case], what: str, name: str) -> Finding:
    trends = {case.label: case.trend(what)[:2] for case in cases}
    agree = [tau > 0 and p < LEVEL for tau, p in trends.values()]
    said = "; ".join(f"{label}: τ = {_shown(tau)}, p = {_shown(p)}" for label, (tau, p) in trends.items())
    return Finding(
        f"The self-{name} of a fully connected network gets worse as the test task is darkened.",
        "holds" if all(agree) else "does not hold" if not any(agree) else "undecided",
        f"{said}. (τ > 0 with p < {LEVEL:g} in {sum(agree)} of {len(agree)} cases.)",
    )


def _not_seen(cases: Sequence[Case]) -> Finding:
    """Batch statistics divide by the very factor that darkening multiplies by, until ε under the root stops them."""
    kept = {}
    for case in cases:
        scores = case.darkened("self_scores")
        kept[case.label] = float(np.median(np.abs(scores[:, 8] / scores[:, 0] - 1)))
    said = "; ".join(f"{label}: {percent(change)}" for label, change in kept.items())
    return Finding(
        "A network that normalises by the batch does not see the darkening, so that neither does its influence.",
        "holds" if max(kept.values()) < 0.1 else "does not hold",
        f"Median change of the self-score at α = 0.8: {said}. (Held to be so below 10%.)",
    )


def _indefinite(cases: Sequence[Case]) -> Finding:
    said = [
        f"{case.subject}: {count} of {len(each['eigenvalues']):,}"
        for case in cases
        for each, count in zip(case.each, case.negative(), strict=True)
    ]
    return Finding(
        "The exact Hessian has negative eigenvalues at the trained parameters.",
        "holds" if all(count for case in cases for count in case.negative()) else "does not hold",
        f"Negative beyond rounding: {'; '.join(said)}.",
    )


def _shown(value: float) -> str:
    return "undefined" if np.isnan(value) else number(float(f"{value:.2g}"))
