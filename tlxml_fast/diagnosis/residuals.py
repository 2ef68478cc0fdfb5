"""Were the linear systems solved?"""

from __future__ import annotations

import numpy as np

from .check import Check, at_most, figure
from .subject import Subject

SOLVED = (1e-3, 1e-1)
BY_DESIGN = (0.1, 0.5**0.5)


def residuals(subject: Subject) -> Check:
    """‖(A + λ)x_i − g_i‖/‖g_i‖ of the test gradients, from the certificate of the solve.

    A residual r of an inverse that is meant to be exact moves a score by at most r‖g_i‖‖H⁺g_j‖: good to 10⁻³, the third
    digit, and doubtful to 10⁻¹; bad too where the solver says that it did not converge. Where the inverse leaves out or
    replaces a part by design (a pseudo-inverse, negative directions dropped, Nyström), the residual is that part of a
    gradient, and the median is graded: good to 0.1, doubtful to √½, half of the squared length.
    """
    found = subject.certificate
    median = float(np.median(found.residuals))
    if found.exact:
        grade = at_most(found.worst, *SOLVED) if found.converged else "bad"
        verdict = f"The worst relative residual of {len(found.residuals)} solves is {figure(found.worst)}."
    else:
        grade = at_most(median, *BY_DESIGN)
        verdict = (
            f"The inverse is an approximation by design: the median test gradient has a residual of {figure(median)}, "
            f"the worst {figure(found.worst)}, which it leaves out or replaces."
        )
    if not found.converged:
        verdict += " The solver did not converge."
    if subject.influence.compression is not None:
        verdict += " That is of the compressed system."
    advice = (
        "raise the damping, the tolerance's iterations or the precision"
        if found.exact
        else "keep more directions"
    )
    values = {"worst": found.worst, "median": median, "exact": found.exact, "converged": found.converged}
    return Check("residuals", grade, verdict, values, advice)
