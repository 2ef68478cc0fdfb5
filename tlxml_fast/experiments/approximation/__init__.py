"""How far can influence be approximated before training tasks change their ranks?"""

from .experiment import Approximation

__all__ = ["Approximation"]
