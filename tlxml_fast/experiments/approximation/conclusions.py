"""What the numbers say: tables, and claims that hold or do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..outcome import Finding, Table
from ..statistics import bootstrap
from .compared import DROPPED, EXACT_HESSIAN, GAUSS_NEWTON, sketch
from .results import Results

AGREES = 0.9
FEW_ROWS = sketch(8)
MEBIBYTE = 2**20


def tables(results: Results) -> list[Table]:
    """What the learners are like; then, for each, how every method does."""
    return [_learners(results), *(_methods(results, case) for case in results.cases)]


def findings(results: Results) -> list[Finding]:
    """The claims, learner by learner."""
    return [finding for case in results.cases for finding in _claims(results, case)]


def verdict(holds: Sequence[bool]) -> str:
    """By seed: a claim holds for all, for none, or is undecided."""
    if all(holds):
        return "holds"
    return "undecided" if any(holds) else "does not hold"


def verdict_of_gains(intervals: Sequence[tuple[float, float]]) -> str:
    """By seed: all intervals lie above zero, all below, or nothing is decided, as where there is none (NaN)."""
    if all(low > 0 for low, _ in intervals):
        return "holds"
    return "does not hold" if all(high < 0 for _, high in intervals) else "undecided"


def _claims(results: Results, case: str) -> Iterator[Finding]:
    methods = results.methods(case)
    if EXACT_HESSIAN in methods:
        claim = "Gauss-Newton scores rank training tasks as the exact Hessian's do"
        yield _agrees(results, case, claim, GAUSS_NEWTON, EXACT_HESSIAN)
        if DROPPED in methods:
            claim = "exact ranks are the same whether negative eigenvalues are dropped or count by their size"
            yield _agrees(results, case, claim, DROPPED, EXACT_HESSIAN)
        claim = "Gauss-Newton ranks are nearer to the exact ones than those of any method without curvature"
        yield _closer(results, case, claim, GAUSS_NEWTON, EXACT_HESSIAN)
    if FEW_ROWS in methods:
        claim = "8 sketched rows a task rank as the whole Gauss-Newton matrix does"
        yield _agrees(results, case, claim, FEW_ROWS, GAUSS_NEWTON)
        claim = "8 sketched rows a task are nearer to Gauss-Newton ranks than any method without curvature"
        yield _closer(results, case, claim, FEW_ROWS, GAUSS_NEWTON)


def _agrees(results: Results, case: str, claim: str, method: str, against: str) -> Finding:
    """Median ρ of at least AGREES at the first damping, seed by seed."""
    first = {seed: _nanmedian(rho) for seed, rho in results.each(case, method, against).items()}
    numbers = [
        f"{number(results.quartiles(case, method, against, i))} at damping {fraction:g}"
        for i, fraction in enumerate(results.fractions(case))
    ]
    return Finding(
        f"{case}: {claim} (median Spearman of at least {AGREES:g} at damping {results.fractions(case)[0]:g} of the "
        "largest eigenvalue)",
        verdict([rho >= AGREES for rho in first.values()]),
        f"median and quartiles over test tasks: {'; '.join(numbers)}; {_by_seed(first)}",
    )


def _closer(results: Results, case: str, claim: str, method: str, against: str) -> Finding:
    """The median over test tasks of what ρ gains on the best simple method: above zero, with its interval, by seed."""
    best = max(results.simple(case), key=lambda name: _median(results, case, name, against))
    ours, theirs = (results.each(case, name, against) for name in (method, best))
    gains = {seed: _known(ours[seed] - theirs[seed]) for seed in ours if seed in theirs}
    intervals = {seed: bootstrap(gain, np.median) for seed, gain in gains.items()}
    told = ", ".join(
        f"{_nanmedian(gain):+.3f} [{low:+.3f}, {high:+.3f}] for seed {seed}"
        for (seed, gain), (low, high) in zip(gains.items(), intervals.values(), strict=True)
    )
    return Finding(
        f"{case}: {claim}",
        verdict_of_gains([*intervals.values()]),
        f"the best of these is {best}, median Spearman {_median(results, case, best, against):.3f} against "
        f"{_median(results, case, method, against):.3f}; paired median difference with its 95% bootstrap interval over "
        f"test tasks, which is to lie above zero: {told}",
    )


def _learners(results: Results) -> Table:
    rows = []
    for case in results.cases:
        for seed, found in results.of(case):
            fit = found["fit"]
            rows.append([
                case,
                seed,
                found["parameters"],
                f"{found['train']} and {found['test']}",
                round(fit["train_accuracy"], 3),
                round(fit["test_accuracy"], 3),
                round(found["median_confidence"], 3),
                float(f"{found['gradient_norm'] / found['median_task_gradient_norm']:.2g}"),
                found["negative_eigenvalues"],
                _or_none(found["smallest_eigenvalue"]),
                _or_none(found["largest_eigenvalue"]),
                ", ".join(f"{rank:.0f}" for rank in found["effective_rank"]),
            ])  # fmt: skip
    shapes = {found["shape"] for case in results.cases for _, found in results.of(case)}
    return Table(
        "The learners",
        [
            "learner", "seed", "parameters", "training and test tasks", "training accuracy", "test accuracy",
            "median confidence", "‖∇L‖ / median ‖∇L_t‖", "negative eigenvalues of H", "least of H", "largest of H",
            "effective rank of G + δ",
        ],
        rows,
        f"Tasks: {'; '.join(sorted(shapes))}. The effective rank, Σ λ/(λ + damping), is that at each of the dampings.",
    )  # fmt: skip


def _methods(results: Results, case: str) -> Table:
    references, fractions = results.references(case), results.fractions(case)
    measured = [(name, i) for name in references for i in range(len(fractions))]
    rows = []
    for method in results.methods(case):
        seconds = results.seconds(case, method)
        rows.append(
            [
                method,
                *(number(results.quartiles(case, method, name, i)) for name, i in measured),
                *(
                    round(results.quartiles(case, method, references[0], 0, statistic)[1], 3)
                    for statistic in ("kendall", "overlap")
                ),
                None if seconds is None else float(f"{seconds:.3g}"),
                float(f"{results.bytes(case, method) / MEBIBYTE:.3g}"),
            ]
        )
    top = results.of(case)[0][1]["top"]
    refused = {f"{name}: {why}" for _, found in results.of(case) for name, why in found["refused"].items()}
    return Table(
        f"{case}: agreement with exact scores",
        [
            "method",
            *(f"ρ with {name}, damping {fractions[i]:g}" for name, i in measured),
            f"τ with {references[0]}",
            f"top {top} in common with {references[0]}",
            "seconds",
            "MiB",
        ],
        rows,
        "Spearman's ρ over training tasks, median (quartiles) over test tasks and seeds; τ and the most helpful in "
        f"common, medians at damping {fractions[0]:g}; by chance these are 0 and "
        f"{top / results.of(case)[0][1]['train']:.2g}. Seconds from the trained learner to the scores, gradients and "
        "curvature included; none where a factor was shared. MiB held beside learner and tasks, by the formulas of the "
        "classes." + ("" if not refused else f" Refused: {'; '.join(sorted(refused))}."),
    )


def number(quartiles: tuple[float, float, float]) -> str:
    """0.93 (0.90–0.95)."""
    low, middle, high = (f"{q:.3f}" for q in quartiles)
    return f"{middle} ({low} to {high})"


def _median(results: Results, case: str, method: str, against: str) -> float:
    middle = results.quartiles(case, method, against)[1]
    return -1.0 if np.isnan(middle) else middle


def _nanmedian(values: np.ndarray) -> float:
    known = _known(values)
    return float(np.median(known)) if len(known) else float("nan")


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _by_seed(values: Mapping[int, float]) -> str:
    return ", ".join(f"{value:.3f} for seed {seed}" for seed, value in values.items())


def _or_none(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
