"""Is a backend right? Every call of the protocol against float64 mathematics, on learners of every kind.

python -m tlxml_fast.backend.conformance NAME
"""

from .cases import CASES, Case
from .checks import CHECKS
from .comparing import Failure
from .run import Result, conform

__all__ = ["CASES", "CHECKS", "Case", "Failure", "Result", "conform"]
