"""Does influence predict what retraining does?"""

from .experiment import GroundTruth

__all__ = ["GroundTruth"]
