"""Grades and verdicts: monotone in what was measured, and sentences that say what the grades do."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from tlxml_fast.diagnosis import Check
from tlxml_fast.diagnosis.agreement import Agreement
from tlxml_fast.diagnosis.check import GRADES, QUESTIONS, at_least, at_most, worst
from tlxml_fast.diagnosis.verdict import CHANGES, GROUPS, RANKS, READINGS, SIGNS, SOFT, in_sentences, trust

finite = st.floats(0, 100)


@given(finite, finite)
def test_a_larger_value_is_never_graded_better(a, b):
    low, high = sorted((a, b))
    assert GRADES.index(at_most(low, 0.1, 1)) <= GRADES.index(at_most(high, 0.1, 1))
    assert GRADES.index(at_least(high, 0.9, 0.5)) <= GRADES.index(at_least(low, 0.9, 0.5))


@pytest.mark.parametrize(
    ("value", "grade"), [(0.1, "good"), (0.11, "doubtful"), (1, "doubtful"), (1.1, "bad"), (None, "unknown")]
)
def test_limits_belong_to_the_better_grade(value, grade):
    assert at_most(value, 0.1, 1) == grade


def test_what_is_no_number_is_unknown():
    assert at_most(float("nan"), 1, 2) == at_least(float("nan"), 1, 2) == "unknown"
    assert at_most(float("inf"), 1, 2) == "bad"


def test_the_worst_grade_ignores_unknown_ones():
    assert worst(["good", "unknown"]) == "good"
    assert worst(["doubtful", "bad", "good"]) == "bad"
    assert worst(["unknown"]) == worst([]) == "unknown"


def test_a_check_has_a_known_grade():
    with pytest.raises(ValueError, match="fine"):
        Check("damping", "fine", "")


def test_json_has_no_infinities():
    made = Check("damping", "bad", "", {"a": float("nan"), "b": float("inf"), "c": 1.5}).describe()
    assert made["values"] == {"a": None, "b": None, "c": 1.5}
    assert json.dumps(made, allow_nan=False)


# ---- agreement --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (2, 40)])
def test_agreement_against_scipy(shape):
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-9, 9, shape, generator=g).double() for _ in range(2))  # with ties
    found = Agreement.of(a, b)
    for i in range(shape[0]):
        assert found.spearman[i] == pytest.approx(spearmanr(a[i], b[i]).statistic, nan_ok=True)
        assert found.kendall[i] == pytest.approx(kendalltau(a[i], b[i]).statistic, nan_ok=True)
        assert found.same_sign[i] == pytest.approx(float((a[i].sign() == b[i].sign()).double().mean()))


def test_the_shared_extremes():
    a = torch.arange(40.0)[None]
    b = a.clone()
    b[0, 9], b[0, 15] = 15, 9  # one of the ten lowest is exchanged
    assert Agreement.of(a, b).top.item() == pytest.approx(19 / 20)
    assert Agreement.of(a, -a).top.item() == 0


def test_scores_that_do_not_differ_agree_with_nothing():
    flat, other = torch.zeros(2, 5), torch.randn(2, 5)
    assert np.isnan(Agreement.of(flat, other).spearman).all()
    assert Agreement.of(flat, other).grade == "unknown"


# ---- verdicts ---------------------------------------------------------------------------------------


def checks(**grades: str) -> list[Check]:
    """All good but those given, with _ for what a name has between its words."""
    named = {name.replace(" ", "_").replace("-", "_"): name for name in QUESTIONS}
    return [
        Check(name, grades.get(key, "good"), "Found.", advice=f"mend the {name}")
        for key, name in named.items()
    ]


def test_everything_good_can_be_trusted():
    assert set(trust(checks()).values()) == {"good"}
    sentences = in_sentences(checks())
    assert sentences[0] == f"Of {len(QUESTIONS)} checks {len(QUESTIONS)} good."
    assert len(sentences) == 2


@pytest.mark.parametrize(("check", "grade"), [*product(QUESTIONS, ("doubtful", "bad", "unknown"))])
def test_no_check_improves_a_reading_by_failing(check, grade):
    made = [Check(c.name, grade if c.name == check else "good", "Found.") for c in checks()]
    found = trust(made)
    assert all(found[reading] in ("good", grade, "doubtful") for reading in found)
    for reading, names in READINGS.items():
        if check in names and grade != "unknown":
            assert found[reading] == grade


def test_a_network_off_its_minimum_keeps_its_ranks_and_loses_its_signs():
    found = trust(checks(stationarity="bad"))
    assert (found[RANKS], found[SIGNS], found[CHANGES], found[GROUPS]) == ("good", "bad", "bad", "good")


@pytest.mark.parametrize("name", SOFT)
def test_ranks_by_another_curvature_are_doubtful_at_worst(name):
    key = name.replace(" ", "_").replace("-", "_")
    assert trust(checks(**{key: "bad"}))[RANKS] == "doubtful"
    assert trust(checks(**{key: "bad"}))[CHANGES] == "bad"
    assert trust(checks(**{key: "bad"}, rank="bad"))[RANKS] == "bad"


def test_groups_stand_one_grade_above_ranks_but_not_on_unsolved_systems():
    assert trust(checks(damping="bad"))[GROUPS] == "doubtful"
    assert trust(checks(damping="doubtful"))[GROUPS] == "good"
    assert trust(checks(residuals="bad"))[GROUPS] == "bad"
    assert trust(checks(Gauss_Newton="bad"))[GROUPS] == "doubtful"


def test_sentences_name_what_is_bad_and_what_to_do():
    sentences = in_sentences(checks(stationarity="bad", damping="doubtful", training_seeds="unknown"))
    assert 2 <= len(sentences) <= 4
    text = " ".join(sentences)
    assert "1 doubtful (damping), 1 bad (stationarity) and 1 unknown" in text
    assert "Mend the stationarity" in text
    assert text.index("mend the damping") > text.index("Mend the stationarity")


def test_nothing_can_be_read_of_unsolved_systems():
    made = checks(residuals="bad", training_seeds="bad")
    assert "Nothing can be read from these scores." in in_sentences(made)
