"""Bridges to the tools people already use; each needs its library only when it is called."""

from .attributors import captum_influence, dattri_attributor
from .explainers import quanda_explainer
from .linear_operators import curvlinops_operator, scipy_operator

__all__ = [
    "captum_influence",
    "curvlinops_operator",
    "dattri_attributor",
    "quanda_explainer",
    "scipy_operator",
]
