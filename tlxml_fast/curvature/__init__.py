"""What stands for the second derivative of the objective: one class a file."""

from .base import Curvature
from .fisher import Fisher
from .gauss_newton import GaussNewton
from .hessian import Hessian
from .identity import Identity
from .operator import CurvatureOperator
from .rows import Rows

__all__ = ["Curvature", "CurvatureOperator", "Fisher", "GaussNewton", "Hessian", "Identity", "Rows"]
