"""The checks: each a function of a backend and a case, which raises Failure with the reason."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol import Backend
from . import derivatives, influences, manners
from .cases import Case

Check = Callable[[Backend, Case], None]

CHECKS: tuple[Check, ...] = (
    derivatives.values,
    derivatives.gradients,
    derivatives.jvp,
    derivatives.vjp,
    derivatives.gnvp,
    derivatives.hvp,
    derivatives.invariance,
    derivatives.single,
    influences.solve,
    influences.decay,
    influences.scores,
    influences.shapes,
    influences.single_influence,
    manners.leaves_the_module_alone,
    manners.remembers_nothing,
    manners.refuses,
)
IN_FLOAT32: tuple[Check, ...] = (derivatives.single, influences.single_influence)
"""Those that ask for float32."""
