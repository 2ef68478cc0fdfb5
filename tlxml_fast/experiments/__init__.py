"""Experiments on what influence scores are worth; `tlxml-fast experiment NAME`, one file an experiment."""

from .approximation import Approximation
from .base import Experiment, Setup
from .distribution_distinction import DistributionDistinction
from .ground_truth import GroundTruth
from .outcome import Drawing, Finding, Outcome, Table
from .repair import Repair
from .run import run_experiment
from .task_distinction import TaskDistinction

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TaskDistinction(),
        DistributionDistinction(),
        Approximation(),
        GroundTruth(),
        Repair(),
    )
}

__all__ = [
    "EXPERIMENTS",
    "Drawing",
    "Experiment",
    "Finding",
    "Outcome",
    "Setup",
    "Table",
    "run_experiment",
]
