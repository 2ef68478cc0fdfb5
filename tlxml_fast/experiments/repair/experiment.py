"""The experiment: interventions on the training of mispredicted test tasks, chosen by different scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import Experiment, Setup
from ..ground_truth.subject import LEARNERS
from ..outcome import Outcome
from .conclusions import conclude
from .measure import repaired


class Repair(Experiment):
    """The test tasks of highest loss, one after the other, and what can be done about each by its scores.

    Half of a task's queries explain it: the training tasks are scored by that half, and then its most harmful ones are
    removed or given half their weight, training going on from where it was; or a few steps of fine-tuning are taken on
    its most helpful ones, and away from its most harmful ones. The other half, of which nothing was known, and all
    other test tasks say what that was worth. Chosen by influence, by embedding or at random.
    """

    name = "repair"
    question = (
        "Do training tasks chosen by influence repair the prediction of a test task better than random ones or its "
        "nearest, and at what cost to other tasks?"
    )

    def one_seed(self, setup: Setup, seed: int) -> dict[str, Any]:
        """For each learner the outcome of every intervention on every target by every score."""
        return {name: repaired(setup, seed, build) for name, build in LEARNERS.items()}

    def conclude(self, setup: Setup, seeds: Mapping[int, dict[str, Any]]) -> Outcome:
        """Shares of errors corrected, changes of loss, their cost; comparisons paired by target."""
        return conclude(seeds)
