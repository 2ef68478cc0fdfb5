"""Ranks under other dampings, ranks, seeds and training runs, against influences computed for each."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import fitted, spearman

import tlxml_fast as tlx
from tlxml_fast.diagnosis import diagnose


@pytest.mark.parametrize("inverse", [tlx.Dense(damping=3.0), tlx.Woodbury(3.0), tlx.CG(3.0, tol=1e-12)])
def test_damping_is_compared_a_decade_each_way(classes, inverse):
    learner, train, test = classes
    influence = fitted(learner, train, inverse=inverse)
    own = influence.scores(test).values
    found = diagnose(influence, test)["damping"].values
    for label, damping in (("at λ/10", 0.3), ("at 10λ", 30.0)):
        other = fitted(learner, train, inverse=tlx.Dense(damping=damping)).scores(test).values
        assert found[f"{label}.spearman"] == pytest.approx(np.median(spearman(own, other)), abs=1e-9)
        assert found[f"{label}.spearman"] < 1


@pytest.mark.parametrize("inverse", [tlx.Dense(rank=12), tlx.Lanczos(12)])
def test_half_the_rank(classes, inverse):
    learner, train, test = classes
    influence = fitted(learner, train, inverse=inverse)
    own = influence.scores(test).values
    half = fitted(learner, train, inverse=tlx.Dense(rank=6)).scores(test).values
    found = diagnose(influence, test)
    assert found["rank"].values["with 6 directions.spearman"] == pytest.approx(
        np.median(spearman(own, half)), abs=1e-6
    )
    assert found["damping"].grade == "unknown"


def test_a_damped_inverse_beside_pseudo_inverses_of_its_effective_rank(classes):
    learner, train, test = classes
    influence = fitted(learner, train, inverse=tlx.Dense(damping=1.0))
    effective = round(influence.report["curvature"]["spectrum"]["effective_rank"])
    names = {name.partition(".")[0] for name in diagnose(influence, test)["rank"].values}
    assert names == {f"with {count} directions" for count in {effective // 2, effective, 2 * effective}}


def test_a_pseudo_inverse_leaves_a_residual(classes):
    learner, train, test = classes
    influence = fitted(learner, train, inverse=tlx.Dense(rank=5))
    expected = influence.scores(test).info["certificate"]["residuals"]
    found = diagnose(influence, test)["residuals"]
    assert found.values["median"] == pytest.approx(np.median(expected))
    assert not found.values["exact"]


def test_a_solve_that_did_not_converge_is_bad(classes):
    learner, train, test = classes
    inverse = tlx.CG(1e-6, tol=1e-14, max_iter=3, allow_unconverged=True)
    with pytest.warns(tlx.InfluenceWarning, match="did not converge"):
        found = diagnose(fitted(learner, train, inverse=inverse), test)
    assert found["residuals"].grade == "bad"
    assert found.trust["which tasks help or harm most"] == "bad"


def test_a_sketch_is_drawn_again(classes):
    learner, train, test = classes
    influence = fitted(learner, train, tlx.Fisher(2), tlx.Woodbury(0.05))
    other = fitted(learner, train, tlx.Fisher(2, seed=1), tlx.Woodbury(0.05)).scores(test).values
    found = diagnose(influence, test)["sketch"].values["another seed.spearman"]
    assert found == pytest.approx(np.median(spearman(influence.scores(test).values, other)))


def test_other_compressions_and_nystroms_are_drawn_again(classes):
    learner, train, test = classes
    compressed = fitted(learner, train, inverse=tlx.Woodbury(0.05), compression=tlx.SJLT(64))
    found = diagnose(compressed, test)
    assert "compression" in found["sketch"].verdict
    assert found["linearity"].grade == "unknown"
    assert "systems.residual" not in found["Gauss-Newton"].values
    sketched = fitted(learner, train, inverse=tlx.Nystrom(8, 0.05))
    assert "inverse" in diagnose(sketched, test)["sketch"].verdict


def test_more_rows_are_no_worse(classes):
    learner, train, test = classes
    few, many = (
        diagnose(fitted(learner, train, tlx.Fisher(s, "rademacher"), tlx.Woodbury(0.05)), test)["sketch"]
        for s in (1, 64)
    )
    assert many.values["another seed.spearman"] > few.values["another seed.spearman"]


def test_the_exact_hessian_drops_nothing_and_is_known_at_all_tasks(classes, untrained):
    learner, train, test = classes
    found = diagnose(fitted(learner, train, tlx.Hessian(), tlx.Dense(damping=0.5)), test, hessian_tasks=2)
    assert found["Gauss-Newton"].grade == "good"
    assert found["negative curvature"].values["tasks"] == len(train)
    lowest = untrained["negative curvature"].values["lowest"]
    assert found["negative curvature"].values["lowest"] == pytest.approx(lowest)


def test_a_protonet_in_float32(classes):
    _, train, test = classes
    learner = tlx.ProtoNet(tlx.models.mlp(64, 4, 3, seed=0), scale=0.1)
    found = diagnose(fitted(learner, train), test)
    assert {check.name for check in found.checks if check.grade == "unknown"} == {"tasks", "training seeds"}
    exact = diagnose(fitted(tlx.ProtoNet(learner.module.double(), scale=0.1), train), test)
    for name, key in (
        ("linearity", "error"),
        ("negative curvature", "lowest"),
        ("Gauss-Newton", "systems.residual"),
    ):
        assert found[name].values[key] == pytest.approx(exact[name].values[key], rel=1e-2)


@pytest.mark.parametrize("target", ["predicted", "margin"])
def test_other_targets(classes, target):
    learner, train, test = classes
    tasks = diagnose(fitted(learner, train), test, target=target)["linearity"]
    smaller = fitted(learner, train, inverse=tlx.Dense(damping=100.0))  # steps of a thousandth: almost linear
    found = diagnose(smaller, test, target=target)["linearity"]
    assert found.values["error"] < 1e-2 < tasks.values["error"]
