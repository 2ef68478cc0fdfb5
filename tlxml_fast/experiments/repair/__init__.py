"""Can influence be used to repair a prediction?"""

from .experiment import Repair

__all__ = ["Repair"]
