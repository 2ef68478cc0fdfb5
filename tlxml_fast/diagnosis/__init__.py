"""Whether influence scores can be trusted: the assumptions behind them, checked on the run at hand and graded."""

from .check import Check
from .diagnose import Diagnosis, diagnose
from .record import diagnosis_of

__all__ = ["Check", "Diagnosis", "diagnose", "diagnosis_of"]
