"""Is there curvature left in the predictions?"""

from __future__ import annotations

import numpy as np

from ..influence import CONFIDENT
from .check import Check, at_most
from .subject import Subject

SHARE = (0.5, 0.9)


def confidence(subject: Subject) -> Check:
    """The share of training queries that are predicted with a probability above 0.99.

    tr Λ_m = 1 − Σ_c p_c² ≤ 2(1 − max p): such a query has at most 0.02 of curvature, where one that is undecided among
    C classes has 1 − 1/C. Good while the median query has more (`fit` warns beyond), doubtful up to nine of ten. The
    squared error has Λ = 2/(nC)·I whatever is predicted.
    """
    if not len(subject.confidences):
        return Check("confidence", "good", "The squared error's Λ does not depend on predictions.")
    share = float((subject.confidences > CONFIDENT).double().mean())
    median = float(np.median(subject.confidences.cpu()))
    return Check(
        "confidence",
        at_most(share, *SHARE),
        f"{share:.0%} of the training queries are predicted with more than {CONFIDENT:.0%}, the median with "
        f"{median:.1%}.",
        {"share_above_0.99": share, "median": median},
        "train with more weight decay or fewer steps, or explain fewer, harder queries",
    )
