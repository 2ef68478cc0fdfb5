"""Full-batch meta-training to a minimum, again and again: the truth that influence predicts.

An influence is a statement about another training run, that without a task. Here that run is made, to a gradient
norm of 1e-6, by the compiled engine, and so is what damped Gauss-Newton influence approximates to first order.
"""

from .bregman import ProximalBregman
from .minima import Minimum, Smooth, minimise, whitening
from .objective import Objective
from .retrain import bregman_responses, retrain_without, train_to_minimum

__all__ = [
    "Minimum",
    "Objective",
    "ProximalBregman",
    "Smooth",
    "bregman_responses",
    "minimise",
    "retrain_without",
    "train_to_minimum",
    "whitening",
]
