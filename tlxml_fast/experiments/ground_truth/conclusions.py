"""Claims of the experiment, and whether its numbers bear them out."""

from __future__ import annotations

from collections.abc import Sequence

from ..outcome import Finding
from .analysis import Interval, Seeds, agreement, chance, detection, learners, of, sizes
from .gains import Gain, gain, gain_of_detection

HESSIAN, GAUSS_NEWTON = "Hessian", "Gauss-Newton"
NO_CURVATURE = (
    "gradient product",
    "gradient cosine",
    "ascent steps",
    "embedding similarity",
    "loss magnitude",
    "random",
)
LEVEL = 0.05


def findings(seeds: Seeds) -> list[Finding]:
    """Each claim is about a mean over test tasks: a difference whose interval is above zero, or a ρ above chance."""
    first, last = sizes(seeds)[0], sizes(seeds)[-1]
    claims = []
    for k in (first, last):
        what = "a single task" if k == 1 else f"a random half of the tasks ({k})"
        claims += [
            _above_zero(
                f"Gauss-Newton influence ranks removals of {what} as the proximal Bregman response does, better than "
                "as retraining from the minimum does.",
                gain(seeds, k, ("bregman", GAUSS_NEWTON), ("warm", GAUSS_NEWTON)),
                "with the response",
                "with retraining",
            ),
            *(
                _above_chance(
                    f"{name} influence predicts retraining {start} without {what}, better than chance.",
                    _rho(seeds, k, truth, name),
                    chance(seeds, k, truth, name),
                )
                for truth, start in (("warm", "from the minimum"), ("scratch", "from the initialisation"))
                for name in (HESSIAN, GAUSS_NEWTON)
            ),
            _above_baselines(seeds, k, what),
            _above_zero(
                f"The exact Hessian predicts retraining from the minimum without {what} better than Gauss-Newton.",
                gain(seeds, k, ("warm", HESSIAN), ("warm", GAUSS_NEWTON)),
                "of the exact Hessian",
                "of Gauss-Newton",
            ),
        ]
    return [*claims, *_found(seeds)]


# ---- inside -------------------------------------------------------------------------------------------


def _rho(seeds: Seeds, k: int, truth: str, name: str) -> Interval:
    return of(agreement(seeds, k, truth, name).spearman)


def _above_zero(claim: str, found: Gain, ours: str, theirs: str) -> Finding:
    return Finding(
        claim,
        _verdict(found.difference),
        f"ρ = {found.ours:.2f} {ours} and {found.theirs:.2f} {theirs}, over the same {found.groups} groups; difference "
        f"{_signed(found.difference)}, groups and test tasks resampled, whose interval is to lie above zero.",
    )


def _above_chance(claim: str, found: Interval, p: float) -> Finding:
    verdict = "holds" if p < LEVEL else "does not hold" if p > 1 - LEVEL else "undecided"
    return Finding(
        claim, verdict, f"ρ = {found}; p = {p:.2g} by permuting the groups, one-sided, to be below {LEVEL:g}."
    )


def _above_baselines(seeds: Seeds, k: int, what: str) -> Finding:
    best = max(NO_CURVATURE, key=lambda name: _rho(seeds, k, "warm", name).mean)
    return _above_zero(
        f"Gauss-Newton influence predicts retraining from the minimum without {what} better than anything without "
        "curvature.",
        gain(seeds, k, ("warm", GAUSS_NEWTON), ("warm", best)),
        "of Gauss-Newton",
        f"of the best of them, {best}",
    )


def _found(seeds: Seeds) -> list[Finding]:
    made = []
    for by, words in (("own", "its influence on itself"), ("mean", "its mean influence on clean test tasks")):
        for learner in learners(seeds):
            which = (GAUSS_NEWTON, by), ("loss magnitude", "mean")
            ours, loss = (detection(seeds, learner, *each).auc for each in which)
            found = gain_of_detection(seeds, learner, *which)
            made.append(
                Finding(
                    f"{learner}: a task with random query labels is found by {words}, better than by its loss.",
                    _verdict(found),
                    f"AUC {_each(ours)} and {_each(loss)} by seed; difference {_signed(found)}, corrupted and clean "
                    "tasks resampled, whose interval is to lie above zero.",
                )
            )
    return made


def _verdict(difference: Interval) -> str:
    """By the interval; undecided where there is none."""
    return "holds" if difference.low > 0 else "does not hold" if difference.high < 0 else "undecided"


def _signed(difference: Interval) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
