"""The experiment: scores against retraining, and against corrupted tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import Experiment, Setup
from ..outcome import Outcome
from .conclusions import findings
from .detection import corrupted_and_found
from .drawings import drawings
from .removal import removed_and_retrained
from .tables import tables


class GroundTruth(Experiment):
    """MAML trained to a minimum by full-batch L-BFGS, and again without groups of its tasks.

    The prediction −(1/M) Σ_{j∈J} I_perf(i, j) against the change of each test task's loss: from retraining started at
    the minimum, from retraining started where training did, and by the proximal Bregman response. And a tenth of the
    training tasks with random query labels, to be found by their scores, for MAML and a ProtoNet.
    """

    name = "ground-truth"
    question = (
        "Does influence predict what retraining without some tasks does to the loss of others, by which curvature, and "
        "does it find training tasks whose labels are wrong?"
    )

    def one_seed(self, setup: Setup, seed: int) -> dict[str, Any]:
        """Scores and changes of losses of every removal; scores of corrupted tasks."""
        return {
            "retraining": removed_and_retrained(setup, seed),
            "detection": corrupted_and_found(setup, seed),
        }

    def conclude(self, setup: Setup, seeds: Mapping[int, dict[str, Any]]) -> Outcome:
        """Rank correlations for each test task, their intervals over test tasks; areas under ROC curves."""
        return Outcome(tables(seeds), drawings(seeds), findings(seeds))
