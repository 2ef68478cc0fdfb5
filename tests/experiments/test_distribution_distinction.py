"""Mixtures, the profiles that labels are permuted over, and conclusions from made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlxml_fast import TaskSet
from tlxml_fast.data import glyphs, permute_classes
from tlxml_fast.experiments import Setup, run_experiment
from tlxml_fast.experiments.distribution_distinction import DistributionDistinction
from tlxml_fast.experiments.distribution_distinction.cases import cases_of, corrected
from tlxml_fast.experiments.distribution_distinction.experiment import _profiles
from tlxml_fast.experiments.distribution_distinction.mixtures import (
    MIXTURES,
    Mixture,
    _split,
    has_groups,
    with_noise,
)
from tlxml_fast.experiments.subjects import MAML_MLP, PROTONET_CONV4
from tlxml_fast.task import Task

SETUP = Setup(quick=True, progress=False)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("subject", [MAML_MLP, PROTONET_CONV4], ids=lambda subject: subject.name)
@pytest.mark.parametrize("augmented", [False, True])
def test_a_mixture_has_families_of_one_group(mixture, subject, augmented):
    mixed = MIXTURES[mixture](subject, SETUP, 0, 16, 3, augmented)
    assert (len(mixed.train), len(mixed.test)) == (16, 3)
    members = [
        [task for task, f in zip(mixed.train, mixed.families, strict=True) if f == family]
        for family in sorted(set(mixed.families))
    ]
    assert {len(found) for found in members} == {4 if augmented else 1}
    assert all(len({task.group for task in found}) == 1 for found in members)
    assert len({task.id for task in mixed.train}) == 16
    if mixture == "noise":
        assert sum(task.group == "noise" for task in mixed.train) == 8
        assert {task.group for task in mixed.test} == {"regular"}


def test_noise_is_noise():
    images = with_noise(PROTONET_CONV4, SETUP, 0, 4, 1, False).train
    spread = {task.group: float(task.support_x.flatten(1).std(1).mean()) for task in images}
    ink = {task.group: float((task.support_x > 0.1).double().mean()) for task in images}
    assert ink["noise"] > 0.85 > 0.5 > ink["regular"]
    assert 0.25 < spread["noise"] < 0.33  # 1/√12 of uniform noise


def test_groups_without_common_classes_are_split():
    train = glyphs("train")
    assert _split(train, glyphs("test"))[1].split == "test"
    other = train.select([i for i, g in enumerate(train.groups) if g == "latin"])
    first, second = _split(train.select([i for i, g in enumerate(train.groups) if g != "latin"]), other)
    assert not set(first.classes) & set(second.classes)
    assert set(first.groups) == set(second.groups)


def test_digits_have_no_groups():
    assert has_groups(SETUP)
    assert not has_groups(Setup("digits"))


def made_up(groups: list[str]) -> TaskSet:
    y = torch.arange(2)
    return TaskSet(
        [Task(torch.rand(2, 3), y, torch.rand(2, 3), y, name=str(i), group=g) for i, g in enumerate(groups)]
    )


def test_profiles_are_means_over_tests_and_families():
    mixed = Mixture(made_up(list("abab")), made_up(list("bba")), [0, 1, 0, 1])
    values = np.arange(12.0).reshape(3, 4)
    found = _profiles(values, mixed)
    assert found["labels"] == ["a", "b"]
    assert found["tests"] == {"a": 1, "b": 2}
    assert found["profiles"] == {"a": [9.0, 10.0], "b": [3.0, 4.0]}


def numbers(seed: int, effect: float) -> dict:
    """24 families, half of them regular; the regular ones are better by `effect`."""
    rng = np.random.default_rng(seed)
    labels = ["regular"] * 12 + ["noise"] * 12
    profile = rng.normal(size=24) + effect * np.array([label == "regular" for label in labels])
    case = {
        "augmented": False,
        "fit": {"train_accuracy": 0.9, "test_accuracy": 0.6},
        "confidence": 0.8,
        "gradient_norm": 0.1,
        "labels": labels,
        "tests": {"regular": 5},
        "profiles": {"regular": profile.tolist()},
    }
    return {
        "cases": [
            {"mixture": "noise", "learner": learner, "decay": decay, "permutation": changed, **case}
            for learner, changed in (("MAML, MLP", 0.3), ("ProtoNet, Conv4", 1e-7))
            for decay in (0.0, 1e-3)
        ]
    }


@pytest.mark.parametrize(("effect", "verdict"), [(-3, "holds"), (3, "does not hold")])
def test_conclusions_follow_the_numbers(effect, verdict):
    seeds = {seed: numbers(seed, effect) for seed in (0, 1)}
    outcome = DistributionDistinction().conclude(Setup(), seeds)
    assert outcome.findings[0].verdict == verdict
    assert outcome.findings[-1].verdict == "holds"  # of renamed classes
    assert len(outcome.tables) == 1


def test_noise_alone_is_rarely_significant():
    p = [cases_of({0: numbers(seed, 0)})[0].p for seed in range(60)]
    assert np.mean(np.array(p) < 0.05) < 0.15
    assert 0.3 < np.mean(p) < 0.7


def test_holm_is_over_the_cases():
    cases = cases_of({0: numbers(0, -3)})
    assert corrected(cases)[0] == pytest.approx(min(1, 4 * cases[0].p))


def test_renaming_twice_is_another_renaming():
    tasks = made_up(["a"])
    assert permute_classes(tasks, 1)[0].id == permute_classes(tasks, 1)[0].id


@pytest.mark.slow
def test_images_too_small_for_conv4_have_both_learners(tmp_path, one_thread):
    setup = Setup("digits", quick=True, progress=False)
    record = run_experiment(DistributionDistinction(), setup, [0], tmp_path)
    assert {case["learner"] for case in record["seeds"]["0"]["cases"]} == {"MAML, MLP", "ProtoNet, MLP"}
