"""Tables of the experiment."""

from __future__ import annotations

import numpy as np

from ..outcome import Table
from .analysis import (
    TRUTHS,
    Seeds,
    agreement,
    agreement_of_truths,
    detection,
    learners,
    means_change,
    names,
    of,
    retrainings,
    sizes,
)

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
        "it is in another basin, and its changes of loss are mostly those between basins: such truths belong to the "
        "optimiser as much as to the tasks. " + OVER,
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
