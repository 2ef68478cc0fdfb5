"""The experiment of TLXML's section on distributions of tasks, with the controls that it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import product

import numpy as np

from ...data import permute_classes
from ...errors import InfluenceWarning
from ...influence import TaskInfluence
from ...learners import Learner
from ...linearize import linearize
from ...progress import progress_bar
from ...solvers import Dense, Relative
from ..base import Experiment, Setup
from ..outcome import Outcome
from ..subjects import MAML_MLP, Subject, describe_fit, subjects
from .cases import DAMPING, DECAYS, Numbers, cases_of
from .conclusions import findings, tables
from .drawings import drawings
from .mixtures import MIXTURES, Mixture, has_groups

STEPS = 250  # there are 48 learners to train a seed


class DistributionDistinction(Experiment):
    """Do training tasks of a test task's own distribution help it more than others do?

    Training sets mix regular tasks with tasks of noise images, and, separately, tasks of several scripts or alphabets;
    with each weight decay δ, and with and without augmentation by rotations and class permutations. Scores are by
    Gauss-Newton curvature and a damped inverse. Of each case the JSON has, for every group of test tasks, the mean
    influence of every training task (of every augmented family), which is what labels are permuted over. (TLXML, arXiv
    2501.14271, experiments on the distinction of task distributions.)
    """

    name = "distribution-distinction"
    question = (
        "Do regular training tasks help regular test tasks more than noise does, and tasks of a script those of the "
        "same script, whatever the weight decay and the augmentation?"
    )

    def one_seed(self, setup: Setup, seed: int) -> Numbers:
        """The numbers of every case, by mixture, learner, δ and augmentation."""
        learners = [subject for subject in subjects(setup) if subject is MAML_MLP or subject.images]
        if len(learners) == 1:  # images too small for Conv4
            learners = list(subjects(setup))
        if setup.quick:
            learners = [subject for subject in learners if subject.name != "MAML, Conv4"]
        mixtures = [name for name in MIXTURES if name != "groups" or has_groups(setup)]
        decays = DECAYS[::2] if setup.quick else DECAYS
        grid = list(product(mixtures, learners, decays, (False, True)))
        found = []
        with progress_bar(f"{self.name}, seed {seed}", len(grid), setup.progress) as advance:
            for mixture, subject, decay, augmented in grid:
                numbers = _of_case(mixture, subject, setup, seed, decay, augmented)
                settings = {
                    "mixture": mixture,
                    "learner": subject.name,
                    "decay": decay,
                    "augmented": augmented,
                }
                found.append({**settings, **numbers})
                advance()
        return {"cases": found}

    def conclude(self, setup: Setup, seeds: Mapping[int, Numbers]) -> Outcome:
        """p-values by permuting labels over training families, combined over seeds, corrected over cases."""
        cases = cases_of(seeds)
        return Outcome(tables(cases), drawings(cases), findings(cases))


def _of_case(
    mixture: str, subject: Subject, setup: Setup, seed: int, decay: float, augmented: bool
) -> Numbers:
    tasks, tests = (16, 8) if setup.quick else (64, 32)
    mixed = MIXTURES[mixture](subject, setup, seed, tasks, tests, augmented)
    quiet = Setup(setup.data, setup.path, setup.quick, progress=False)
    learner = subject.trained(mixed.train, quiet, seed, weight_decay=decay, steps=STEPS)
    with warnings.catch_warnings():
        # confidence and stationarity are among the numbers
        warnings.simplefilter("ignore", InfluenceWarning)
        influence = TaskInfluence(learner, inverse=Dense(damping=Relative(DAMPING))).fit(mixed.train)
        values = influence.scores(mixed.test).values.numpy()
    regular = [i for i, task in enumerate(mixed.train) if task.group != "noise"]
    return {
        "fit": describe_fit(learner, mixed.train[regular], mixed.test),
        "confidence": influence.report["median_confidence"],
        "gradient_norm": influence.report["gradient_norm"],
        "permutation": _permutation(learner, mixed),
        **_profiles(values, mixed),
    }


def _profiles(values: np.ndarray, mixed: Mixture) -> Numbers:
    """The mean influence on each group of test tasks, of each family of training tasks."""
    families, first = np.unique(mixed.families, return_index=True)
    member = (np.array(mixed.families)[:, None] == families) / np.bincount(mixed.families)
    of_family = values @ member  # [n_test, families]
    tests = np.array(mixed.test.groups)
    groups = sorted(set(tests.tolist()))
    labels = mixed.train.groups
    return {
        "labels": [labels[i] for i in first],
        "tests": {group: int((tests == group).sum()) for group in groups},
        "profiles": {group: of_family[tests == group].mean(0).tolist() for group in groups},
    }


def _permutation(learner: Learner, mixed: Mixture) -> float:
    """How far losses change when classes are renamed, relative to the largest: rounding for a ProtoNet."""
    some = mixed.train[:8]
    before, after = (linearize(learner, tasks).losses() for tasks in (some, permute_classes(some, 1)))
    return float((after - before).abs().max() / before.abs().max())
