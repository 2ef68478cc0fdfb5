"""The raw numbers of a learner, as tables, findings and the figure ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

Seeds = Mapping[int, dict[str, Any]]


class Case:
    """The outcomes of a learner, the targets of all seeds in one row."""

    def __init__(self, learner: str, seeds: Seeds):
        self.learner = learner
        self.outcomes = [each for numbers in seeds.values() for each in numbers[learner]["outcomes"]]
        self.interventions = list(dict.fromkeys(each["intervention"] for each in self.outcomes))
        self.choosers = list(dict.fromkeys(each["chosen by"] for each in self.outcomes))
        tests = [numbers[learner]["test"] for numbers in seeds.values()]
        self.loss = float(np.mean([[test["seen_losses"], test["fresh_losses"]] for test in tests]))
        """The mean over all test tasks, before."""

    def of(self, what: str, intervention: str, chooser: str) -> np.ndarray:
        """A number for each target, in the same order whatever the intervention and the chooser, [N]."""
        rows = (o for o in self.outcomes if (o["intervention"], o["chosen by"]) == (intervention, chooser))
        return np.array([row[what] for row in rows], float)

    def p(self, intervention: str, ours: str, theirs: str) -> float:
        """Wilcoxon's signed-rank test of the targets' changes of fresh loss, two-sided; 1 where all are equal."""
        difference = self.of("fresh_loss", intervention, ours) - self.of("fresh_loss", intervention, theirs)
        return float(wilcoxon(difference).pvalue) if difference.any() else 1.0
