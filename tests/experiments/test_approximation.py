"""The experiment "approximation": agreement recomputed, conclusions from made-up numbers, pictures that draw."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

import tlxml_fast as tlx
from tlxml_fast.experiments import Setup
from tlxml_fast.experiments.approximation import Approximation, cases, experiment
from tlxml_fast.experiments.approximation.compared import (
    DROPPED,
    EXACT,
    EXACT_HESSIAN,
    FISHER,
    GAUSS_NEWTON,
    LARGE,
    QUICK,
    sketch,
)
from tlxml_fast.experiments.approximation.conclusions import findings, tables, verdict, verdict_of_gains
from tlxml_fast.experiments.approximation.drawings import drawings
from tlxml_fast.experiments.approximation.memory import held
from tlxml_fast.experiments.approximation.methods import ByInfluence
from tlxml_fast.experiments.approximation.results import Results
from tlxml_fast.report.figures import DARK, LIGHT

SETUP = Setup("digits", quick=True, progress=False)
CASE = replace(cases.QUICK_CASES[0], train=7, test=3)


@pytest.fixture(scope="module")
def numbers() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "QUICK_CASES", (CASE,))
        return Approximation().one_seed(SETUP, 1)


@pytest.fixture(scope="module")
def learner_and_tasks() -> tuple:
    train, test = CASE.tasks(SETUP, 1)
    return CASE.subject.trained(train, SETUP, 1, **CASE.training), train, test


def scores(learner, train, test, curvature, damping, **settings):
    inverse = tlx.Dense(damping=damping, **settings)
    return tlx.TaskInfluence(learner, curvature, inverse).fit(train).scores(test).values.numpy()


def method(numbers: dict, name: str) -> dict:
    return next(m for m in numbers[CASE.subject.name]["methods"] if m["name"] == name)


def test_the_numbers_are_json(numbers):
    assert json.loads(json.dumps(numbers)) == numbers


def test_agreement_is_that_of_scores_computed_anew(numbers, learner_and_tasks):
    found = numbers[CASE.subject.name]
    for i, damping in enumerate(found["dampings"]):
        exact = scores(*learner_and_tasks, tlx.Hessian(), damping, negative="abs")
        ours = scores(*learner_and_tasks, tlx.GaussNewton(), damping)
        agreement = method(numbers, GAUSS_NEWTON)["agreement"][EXACT_HESSIAN][i]
        for k, (a, b) in enumerate(zip(ours, exact, strict=True)):
            assert agreement["spearman"][k] == pytest.approx(spearmanr(a, b).statistic)
            assert agreement["kendall"][k] == pytest.approx(kendalltau(a, b).statistic)
        dropped = scores(*learner_and_tasks, tlx.Hessian(), damping)
        rho = method(numbers, DROPPED)["agreement"][EXACT_HESSIAN][i]["spearman"]
        assert rho == pytest.approx([spearmanr(a, b).statistic for a, b in zip(dropped, exact, strict=True)])


def test_dampings_are_shares_of_the_largest_eigenvalue_of_gauss_newton(numbers, learner_and_tasks):
    learner, train, _ = learner_and_tasks
    influence = tlx.TaskInfluence(learner, tlx.GaussNewton(), tlx.Dense(damping=1.0)).fit(train)
    largest = max(influence.report["curvature"]["spectrum"]["eigenvalues"])
    found = numbers[CASE.subject.name]
    np.testing.assert_allclose(found["dampings"], np.array(found["fractions"]) * largest, rtol=1e-5)


def test_a_method_agrees_with_itself_and_chance_with_nothing(numbers):
    for name in (GAUSS_NEWTON, EXACT_HESSIAN):
        for each in method(numbers, name)["agreement"][name]:
            assert np.allclose([*each["spearman"], *each["kendall"], *each["overlap"]], 1)
    assert method(numbers, "random")["seconds"] > 0
    assert method(numbers, "random")["bytes"] == 0


def test_what_is_held():
    assert held(None, 10, 0, 100, False) == 4 * 10 * 100
    assert held(tlx.Dense(1.0), 10, 80, 100, False) == 4 * 10 * 100 + 4 * 8 * 100**2
    assert held(tlx.Dense(1.0), 10, 80, 100, True) == 4 * 90 * 100 + 4 * 8 * 100**2
    assert held(tlx.Woodbury(1.0), 10, 80, 100, False) == 4 * 90 * 100 + 24 * 80**2
    assert held(tlx.Nystrom(7, 1.0), 10, 80, 100, False) == 4 * 10 * 100 + 32 * 7 * 100
    assert held(tlx.Lanczos(16), 10, 80, 10_000, False) == 4 * 10 * 10_000 + 8 * (96 + 16) * 10_000


@pytest.mark.parametrize("compared", [EXACT, LARGE, QUICK])
def test_methods_are_named_once_and_gauss_newton_comes_first(compared):
    names = [m.name for m in compared]
    assert len(set(names)) == len(names)
    assert names[0] == GAUSS_NEWTON
    # whoever shares a factor comes after whoever made it
    first = next((i for i, m in enumerate(compared) if m.family == EXACT_HESSIAN), 0)
    assert not getattr(compared[first], "shared", False)
    assert sketch(8) in names


def test_small_images_leave_out_what_does_not_see_them():
    assert [c.subject.images for c in cases.cases(Setup("digits", progress=False))] == [False]


def test_a_method_that_is_refused_is_told_and_left_out(monkeypatch):
    dampings = []

    def too_many(damping):
        dampings.append(damping)
        return tlx.Lanczos(10**6)

    refusing = ByInfluence("too many", "low rank", tlx.GaussNewton(), too_many, damped=False)
    case = replace(CASE, methods=(QUICK[0], refusing, *QUICK[-6:]))
    monkeypatch.setattr(experiment, "cases", lambda _: [case])
    found = Approximation().one_seed(SETUP, 0)[CASE.subject.name]
    assert dampings == found["dampings"][:1]  # absolute: the same for every method
    assert "1000000" in found["refused"]["too many"]
    assert "too many" not in [m["name"] for m in found["methods"]]
    results = Results({0: {CASE.subject.name: found}})
    assert "too many" in tables(results)[1].note
    assert len(findings(results)) == 0


# ---- conclusions from made-up numbers ------------------------------------------------------------------------


def made_up(gauss_newton: float, identity: float, few: float, dropped: float = 0.95) -> dict:
    """One learner, four test tasks, the same ρ for all but one that is not known."""

    def entry(name: str, family: str, exact: float, whole: float) -> dict:
        each = [
            {"spearman": [rho, rho, None, rho], "kendall": [rho] * 4, "overlap": [0.5] * 4}
            for rho in (exact, whole)
        ]
        agreement = {EXACT_HESSIAN: [each[0]] * 2, GAUSS_NEWTON: [each[1]] * 2}
        return {"name": name, "family": family, "seconds": 2.0, "bytes": 2**20, "agreement": agreement}

    methods = [
        entry(GAUSS_NEWTON, GAUSS_NEWTON, gauss_newton, 1),
        entry(EXACT_HESSIAN, EXACT_HESSIAN, 1, gauss_newton),
        entry(DROPPED, EXACT_HESSIAN, dropped, 0.5) | {"seconds": None},
        entry(sketch(8), FISHER, few, few),
        entry("Identity()", "no curvature", identity, identity),
        entry("random", "baseline", 0.0, 0.0),
    ]
    found = {
        "parameters": 5, "train": 20, "test": 4, "shape": "5-way", "fractions": [1e-3, 0.1], "dampings": [1.0, 2.0],
        "fit": {"train_accuracy": 0.9, "test_accuracy": 0.8}, "median_confidence": 0.5, "gradient_norm": 0.1,
        "median_task_gradient_norm": 1.0, "negative_eigenvalues": 3, "smallest_eigenvalue": -1.0,
        "largest_eigenvalue": 2.0, "effective_rank": [3.0, 2.0], "top": 10, "refused": {}, "methods": methods,
    }  # fmt: skip
    return {"MAML": found}


def test_claims_hold_by_the_numbers():
    good = findings(Results({0: made_up(0.95, 0.5, 0.93)}))
    assert [f.verdict for f in good] == ["holds"] * 5
    assert "0.950 (0.950 to 0.950) at damping 0.001" in good[0].because
    bad = findings(Results({0: made_up(0.4, 0.5, 0.45, 0.7)}))
    assert [f.verdict for f in bad] == ["does not hold"] * 5
    assert "Identity()" in bad[2].because


def test_seeds_that_disagree_decide_nothing():
    assert (
        findings(Results({0: made_up(0.95, 0.5, 0.9), 1: made_up(0.8, 0.5, 0.9)}))[0].verdict == "undecided"
    )
    assert [verdict(v) for v in ([True], [False, False], [True, False])] == [
        "holds",
        "does not hold",
        "undecided",
    ]


def test_a_gain_within_its_noise_decides_nothing():
    """A median difference above zero, of four test tasks that disagree."""
    numbers = made_up(0.95, 0.5, 0.93)
    ours = next(m for m in numbers["MAML"]["methods"] if m["name"] == GAUSS_NEWTON)
    ours["agreement"][EXACT_HESSIAN][0]["spearman"] = [0.51, 0.52, 0.51, 0.3]
    found = findings(Results({0: numbers}))[2]
    assert found.verdict == "undecided"
    assert "+0.010 [-0.200, +0.020] for seed 0" in found.because


def test_gains_decide_where_all_seeds_do():
    nothing = (float("nan"),) * 2
    assert verdict_of_gains([(0.1, 0.2), (0.1, 0.3)]) == "holds"
    assert verdict_of_gains([(-0.2, -0.1)]) == "does not hold"
    for intervals in ([(0.1, 0.2), (-0.2, -0.1)], [(0, 0.1)], [(0.1, 0.2), nothing], [nothing]):
        assert verdict_of_gains(intervals) == "undecided"


def test_tables_have_every_method_and_median():
    learners, methods = tables(Results({0: made_up(0.95, 0.5, 0.9), 1: made_up(0.85, 0.5, 0.9)}))
    assert len(learners.rows) == 2
    by_name = {row[0]: dict(zip(methods.columns, row, strict=True)) for row in methods.rows}
    assert by_name[GAUSS_NEWTON][f"ρ with {EXACT_HESSIAN}, damping 0.001"] == "0.900 (0.850 to 0.950)"
    assert by_name[DROPPED]["seconds"] is None
    assert by_name["random"]["MiB"] == 1


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_drawings_draw(numbers, theme):
    for results in (Results({1: numbers}), Results({0: made_up(0.9, 0.5, 0.9), 1: made_up(0.8, 0.5, 0.9)})):
        made = drawings(results)
        assert len({drawing.name for drawing in made}) == len(made)
        for drawing in made:
            figure = Figure(figsize=(drawing.width, drawing.height), layout="constrained")
            drawing.draw(figure, theme)
            figure.canvas.draw()
            assert figure.axes


@pytest.mark.slow
def test_a_quick_run_on_glyphs(tmp_path):
    from tlxml_fast.experiments import run_experiment

    record = run_experiment(Approximation(), Setup(quick=True, progress=False), [0], tmp_path)
    assert len(record["findings"]) == 10
    assert (tmp_path / "approximation.html").exists()
