"""Learners: how a module adapts to a support set and predicts a query set."""

from .base import Episode, Learner, Parameters
from .function import FunctionLearner
from .maml import MAML
from .protonet import ProtoNet

LEARNERS = {learner.kind: learner for learner in (MAML, ProtoNet)}

__all__ = ["LEARNERS", "MAML", "Episode", "FunctionLearner", "Learner", "Parameters", "ProtoNet"]
