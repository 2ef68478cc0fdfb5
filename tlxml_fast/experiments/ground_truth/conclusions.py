"""Tables and findings of the experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..outcome import Finding, Table
from .analysis import (
    TRUTHS,
    Interval,
    Seeds,
    agreement,
    agreement_of_truths,
    chance,
    detection,
    learners,
    means_change,
    names,
    of,
    retrainings,
    sizes,
)

HESSIAN, UNDAMPED, GAUSS_NEWTON = "Hessian", "Hessian, undamped", "Gauss-Newton"
NO_CURVATURE = (
    "gradient product",
    "gradient cosine",
    "ascent steps",
    "embedding similarity",
    "loss magnitude",
    "random",
)
LEVEL = 0.05
OVER = "95% bootstrap intervals over test tasks, the removed groups being what they are."


def tables(seeds: Seeds) -> list[Table]:
    """The minima, the retrainings, agreement for each size of a group, detection."""
    return [
        _minima(seeds),
        _speed(seeds),
        _retrained(seeds),
        *(_agreement(seeds, k) for k in sizes(seeds)),
        _detection(seeds),
    ]


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
                _gain(seeds, k, ("bregman", GAUSS_NEWTON), ("warm", GAUSS_NEWTON)),
                f"ρ = {_rho(seeds, k, 'bregman', GAUSS_NEWTON)} with the response and "
                f"{_rho(seeds, k, 'warm', GAUSS_NEWTON)} with retraining",
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
                _gain(seeds, k, ("warm", HESSIAN), ("warm", GAUSS_NEWTON)),
                f"ρ = {_rho(seeds, k, 'warm', HESSIAN)} and {_rho(seeds, k, 'warm', GAUSS_NEWTON)}",
            ),
        ]
    return [*claims, *_found(seeds)]


# ---- tables ---------------------------------------------------------------------------------------------


def _minima(seeds: Seeds) -> Table:
    keys = {
        "train": "training tasks",
        "parameters": "parameters",
        "gradient_norm": "‖∇L‖",
        "smallest_eigenvalue": "smallest λ(H)",
        "largest_eigenvalue": "largest λ(H)",
        "train_accuracy": "train accuracy",
        "test_accuracy": "test accuracy",
        "train_loss": "train loss",
        "test_loss": "test loss",
        "evaluations": "evaluations",
    }
    rows = [[seed, *(numbers["retraining"][key] for key in keys)] for seed, numbers in seeds.items()]
    first = next(iter(seeds.values()))["retraining"]
    note = (
        f"MAML on an MLP with tanh, δ = {first['weight_decay']:g}, full batch. λ(H): eigenvalues of the exact Hessian "
        f"of the objective. Damped methods have {first['damping']:g} beside δ, as the proximal Bregman response has."
    )
    return Table("The minimum that is retrained from (a row a seed)", ["seed", *keys.values()], rows, note)


def _speed(seeds: Seeds) -> Table:
    rows = []
    for seed, numbers in seeds.items():
        taken = numbers["retraining"]["evaluation_seconds"]
        engine, torch = taken["engine"], taken["torch.func"]
        rows.append([seed, 1e3 * engine, 1e3 * torch, torch / engine, numbers["retraining"]["seconds"]])
    return Table(
        "An evaluation of the objective with its gradient",
        ["seed", "engine, ms", "torch.func, ms", "ratio", "training to the minimum, s"],
        rows,
        "All training tasks; torch.func in one vmap over them. Medians of seven each, taken in turn.",
    )


def _retrained(seeds: Seeds) -> Table:
    rows = []
    for k in sizes(seeds):
        for truth, words in TRUTHS.items():
            found = retrainings(seeds, k, truth)
            with_warm = (
                None if truth == "warm" else str(of(agreement_of_truths(seeds, k, truth, "warm").spearman))
            )
            rows.append(
                [
                    k,
                    words,
                    len(found["converged"]),
                    int((found["converged"] == 0).sum()),
                    float(np.median(found["evaluations"])),
                    float(np.median(found["distances"])),
                    with_warm,
                ]
            )
    return Table(
        "Retraining without k tasks",
        [
            "k",
            "truth",
            "groups",
            "not converged",
            "evaluations",
            "distance",
            "ρ with retraining from the minimum",
        ],
        rows,
        "Evaluations and ‖ω − ω̂‖/‖ω̂‖: medians over groups. Where retraining from the initialisation ends far away, "
        "it is in another basin, and its changes of loss are mostly those between basins. " + OVER,
    )


def _agreement(seeds: Seeds, k: int) -> Table:
    rows = []
    for name in names(seeds):
        row: list = [name]
        for truth in TRUTHS:
            found = agreement(seeds, k, truth, name)
            row += [str(of(found.spearman)), float(np.nanmean(found.pearson))]
            row.append(float(np.nanmedian(found.slope)) if means_change(seeds, name) else None)
        rows.append(row)
    columns = [f"{of_what}, {truth}" for truth in TRUTHS for of_what in ("ρ", "r", "slope")]
    half = k == sizes(seeds)[-1]
    title = (
        f"Half of the tasks removed (k = {k}): the linear datamodelling score is ρ"
        if half
        else f"k = {k} removed"
    )
    return Table(
        title,
        ["scores", *columns],
        rows,
        "Prediction against the change of each test task's loss: Spearman's ρ and Pearson's r over the removed groups, "
        "the mean over test tasks; slope of the change on the prediction through the origin, the median. "
        + OVER,
    )


def _detection(seeds: Seeds) -> Table:
    rows = []
    for learner in learners(seeds):
        for name in names(seeds):
            row: list = [learner, name]
            for by in ("own", "mean"):
                found = detection(seeds, learner, name, by)
                row += (
                    [None, None]
                    if found is None
                    else [float(found.auc.mean()), float(found.precision.mean())]
                )
            rows.append(row)
    first = next(iter(seeds.values()))["detection"]["corrupted"]
    return Table(
        "Training tasks with random query labels, found by their scores",
        ["learner", "scores", "self: AUC", "self: precision", "mean: AUC", "mean: precision"],
        rows,
        f"{sum(first)} of {len(first)} tasks; precision among as many of the most suspicious; by chance 0.5 and "
        f"{sum(first) / len(first):.2f}. Self: the size of a task's influence on itself. Mean: its harm to clean test "
        "tasks. Means over seeds.",
    )


# ---- findings -------------------------------------------------------------------------------------------


def _rho(seeds: Seeds, k: int, truth: str, name: str) -> Interval:
    return of(agreement(seeds, k, truth, name).spearman)


def _gain(seeds: Seeds, k: int, ours: tuple[str, str], theirs: tuple[str, str]) -> Interval:
    """The difference of two ρ, test task by test task."""
    return of(agreement(seeds, k, *ours).spearman - agreement(seeds, k, *theirs).spearman)


def _above_zero(claim: str, found: Interval, because: str) -> Finding:
    verdict = "holds" if found.low > 0 else "does not hold" if found.high < 0 else "undecided"
    return Finding(claim, verdict, f"{because}; difference {found}, whose interval is to lie above zero.")


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
        _gain(seeds, k, ("warm", GAUSS_NEWTON), ("warm", best)),
        f"ρ = {_rho(seeds, k, 'warm', GAUSS_NEWTON)}, and {_rho(seeds, k, 'warm', best)} of the best of them, {best}",
    )


def _found(seeds: Seeds) -> list[Finding]:
    made = []
    for by, words in (("own", "its influence on itself"), ("mean", "its mean influence on clean test tasks")):
        for learner in learners(seeds):
            ours, loss = (
                detection(seeds, learner, *which).auc
                for which in ((GAUSS_NEWTON, by), ("loss magnitude", "mean"))
            )
            made.append(
                Finding(
                    f"{learner}: a task with random query labels is found by {words}, better than by its loss.",
                    _seeds_agree(ours - loss),
                    f"AUC {_each(ours)} and {_each(loss)} by seed.",
                )
            )
    return made


def _seeds_agree(differences: np.ndarray) -> str:
    return "holds" if (differences > 0).all() else "does not hold" if (differences < 0).all() else "undecided"


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
