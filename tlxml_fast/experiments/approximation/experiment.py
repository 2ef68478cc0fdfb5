"""The experiment: every method on every case, compared with exact scores."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CurvatureError
from ...progress import progress_bar
from ...scores import Scores
from ...solvers import Relative
from ..base import Experiment, Setup
from ..outcome import Outcome
from ..statistics import kendall, spearman, top_overlap
from ..subjects import describe_fit
from .cases import Case, cases
from .compared import EXACT_HESSIAN, GAUSS_NEWTON
from .conclusions import findings, tables
from .drawings import drawings
from .methods import Found, Problem
from .results import Results

FRACTIONS = (1e-3, 1e-1)
TOP = 10
TOLD = ("gradient_norm", "median_task_gradient_norm", "median_confidence", "weight_decay")


class Approximation(Experiment):
    """Ranks by approximations and by baselines, against those by the exact Hessian and by Gauss-Newton.

    Every method scores the same tasks of the same trained learners at the same absolute dampings, fractions of the
    largest eigenvalue of the Gauss-Newton matrix. Of the exact Hessian, negative eigenvalues count by their size.
    """

    name = "approximation"
    question = "How far can influence be approximated before training tasks change their ranks, and what does it save?"

    def one_seed(self, setup: Setup, seed: int) -> dict[str, Any]:
        """Agreement of every method with the references for each test task, seconds and bytes, case by case."""
        return {case.subject.name: _measured(case, setup, seed) for case in cases(setup)}

    def conclude(self, setup: Setup, seeds: Mapping[int, dict[str, Any]]) -> Outcome:
        """A table and a drawing of methods for each case; ranks against rows; ranks against seconds."""
        results = Results(seeds)
        return Outcome(tables(results), drawings(results), findings(results))


def _measured(case: Case, setup: Setup, seed: int) -> dict[str, Any]:
    train, test = case.tasks(setup, seed)
    learner = case.subject.trained(train, setup, seed, **case.training)
    fractions = [Relative(fraction) for fraction in FRACTIONS]
    whole, *others = case.methods
    refused: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory() as store,
        progress_bar(f"approximation {case.subject.name}", len(case.methods), setup.progress) as advance,
    ):
        problem = Problem(learner, train, test, fractions, Path(store) / "store")
        whole.run(
            replace(problem, train=train[:2], test=test[:1])
        )  # what only a first call takes is nobody's time
        found = {GAUSS_NEWTON: whole.run(problem)}
        dampings = tuple(s.info["certificate"]["damping"] for s in found[GAUSS_NEWTON].scores)
        problem = replace(problem, dampings=dampings)
        advance(1, whole.name)
        for method in others:
            try:
                found[method.name] = method.run(problem)
            except CurvatureError as error:
                refused[method.name] = str(error)
            advance(1, method.name)
    references = {name: found[name].scores for name in (EXACT_HESSIAN, GAUSS_NEWTON) if name in found}
    report = found[GAUSS_NEWTON].scores[0].info
    exact = found[EXACT_HESSIAN].scores[0].info["curvature"]["spectrum"] if EXACT_HESSIAN in found else {}
    return {
        "parameters": problem.parameters,
        "train": len(train),
        "test": len(test),
        "shape": str(train[0].shape),
        "fit": describe_fit(learner, train, test),
        **{key: report[key] for key in TOLD},
        "fractions": list(FRACTIONS),
        "dampings": list(dampings),
        "effective_rank": [s.info["certificate"]["effective_rank"] for s in found[GAUSS_NEWTON].scores],
        "negative_eigenvalues": exact.get("n_negative"),
        "smallest_eigenvalue": min(exact["eigenvalues"]) if exact else None,
        "largest_eigenvalue": max(exact["eigenvalues"]) if exact else None,
        "top": min(TOP, len(train)),
        "refused": refused,
        "methods": [
            {
                "name": method.name,
                "family": method.family,
                "seconds": found[method.name].seconds,
                "bytes": found[method.name].bytes,
                "agreement": {
                    name: _agreement(found[method.name], against) for name, against in references.items()
                },
            }
            for method in case.methods
            if method.name in found
        ],
    }


def _agreement(found: Found, against: Sequence[Scores]) -> list[dict[str, list[float]]]:
    """At every damping, a number for each test task."""
    ours = [s.values.numpy() for s in found.scores]
    if len(ours) == 1:  # whatever the damping
        ours *= len(against)
    return [_compared(a, b.values.numpy()) for a, b in zip(ours, against, strict=True)]


def _compared(a: np.ndarray, b: np.ndarray) -> dict[str, list[float]]:
    return {
        "spearman": spearman(a, b).tolist(),
        "kendall": kendall(a, b).tau.tolist(),
        "overlap": top_overlap(a, b, min(TOP, a.shape[1])).tolist(),
    }
