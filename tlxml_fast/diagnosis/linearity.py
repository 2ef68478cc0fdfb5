"""Is the removal of one task a small step?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..linearize import Linearization
from .check import Check, at_most, figure
from .subject import Subject

TESTS = 8
ERROR = (0.1, 1.0)


def linearity(subject: Subject) -> Check:
    """The real change of a test task's target along the step of one removal, against its first order.

    Removing task j moves ω by H⁺∇L_j/M, and −I_perf(i, j)/M is the first order of what L_i then does. Here L_i is
    evaluated at ω̂ + H⁺∇L_j/M, in float64, for up to 8 test tasks and the lowest and the highest of their scores. The
    relative error shows curvature of L_i along the step, and the jumps that a ReLU or pooling inside an inner gradient
    step causes; not whether retraining would make that step, for which see the other checks. Graded by the median: good
    to 0.1; bad above 1, where the first order is no better than no prediction.
    """
    if subject.influence.compression is not None:
        return Check("linearity", "unknown", "Steps of ω are not known from compressed gradients.")
    errors, M = [], len(subject.train)
    for i, scores in enumerate(subject.values[:TESTS]):
        ends = sorted({int(scores.argmin()), int(scores.argmax())})
        lin = subject.exact_test(i)
        value = _value(lin, subject.target)
        now = value(lin)
        for j, step in zip(ends, subject.solve_gradients(ends) / M, strict=True):
            predicted = -float(scores[j]) / M
            change = float(value(lin.at(lin.omega + step.to(lin.omega))) - now)
            errors.append(abs(change - predicted) / abs(predicted) if predicted else float("nan"))
    median = float(np.median(errors))
    return Check(
        "linearity",
        at_most(median, *ERROR),
        f"Along the steps of {len(errors)} single removals the target changes as the first order says to within "
        f"{figure(median)} of it in the median, {figure(max(errors))} at the worst.",
        {"error": median, "worst_error": max(errors), "removals": len(errors)},
        "raise the damping or fit to more tasks, so that one task is a smaller step; use a smooth activation for MAML",
    )


def _value(lin: Linearization, target: str) -> Callable[[Linearization], Tensor]:
    """A task's target as a function of where it is linearized, the classes it is about chosen here."""
    if target == "loss":
        return lambda at: at.losses()[0].double()
    first, second = lin.logits[0].sort(dim=-1, descending=True, stable=True).indices[:, :2].unbind(-1)
    if target == "predicted":
        return lambda at: at.learner.loss.per_query(at.logits[0], first).mean()
    m = torch.arange(lin.n, device=lin.device)
    return lambda at: (at.logits[0][m, first] - at.logits[0][m, second]).mean()
