"""What stands for the second derivative of the objective: one class a file."""

from .base import Curvature, CurvatureOperator
from .gauss_newton import GaussNewton
from .hessian import Hessian
from .identity import Identity

__all__ = ["Curvature", "CurvatureOperator", "GaussNewton", "Hessian", "Identity"]
