"""What stands for the second derivative of the objective: one class a file."""

from .base import Curvature
from .gauss_newton import GaussNewton
from .hessian import Hessian
from .identity import Identity
from .operator import CurvatureOperator

__all__ = ["Curvature", "CurvatureOperator", "GaussNewton", "Hessian", "Identity"]
