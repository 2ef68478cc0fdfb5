"""How much of a gradient does the damping take?"""

from __future__ import annotations

import numpy as np

from .check import Check, at_most, figure
from .residuals import BY_DESIGN
from .subject import Subject

NAME = "damped part"


def damped(subject: Subject) -> Check:
    """λ‖x_i‖/‖g_i‖ of the test gradients, for (A + λ)x_i = g_i: the relative residual of x_i without the damping.

    The objective has no λ: retraining answers to A = C + δ alone, and a damped inverse shrinks what it predicts of
    that by this part. Ranks need not suffer, sizes do. Graded by the median, as the part that any approximate inverse
    leaves out: good to 0.1, doubtful to √½, half of the squared length. Without it every other check of sizes gets
    better the larger λ is, up to scores of zero.
    """
    if subject.inverse is None:
        return Check(NAME, "unknown", "There is no inverse, and sizes have no meaning.")
    damping = subject.certificate.damping
    if damping == 0:
        return Check(NAME, "good", "The inverse is not damped.", {"part": 0.0})
    norms = subject.test_gradients.norm(dim=1)
    part = float(np.median((damping * subject.solutions.norm(dim=1) / norms).cpu()))
    return Check(
        NAME,
        at_most(part, *BY_DESIGN),
        f"The damping of {figure(damping)} takes {figure(part)} of the median test gradient, which retraining would "
        "answer to.",
        {"part": part, "damping": damping},
        "lower the damping, and look at how the ranks hang on it",
    )
