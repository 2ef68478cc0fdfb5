"""Does influence tell distributions of tasks apart? Training sets that mix two or more of them."""

from .experiment import DistributionDistinction

__all__ = ["DistributionDistinction"]
