"""What is explained of a test task: its loss, a quantity that needs no query labels, or an adapted parameter."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import LearnerError
from .linearize import Linearization

TARGETS = ("loss", "predicted", "margin", "probability")
LARGER_IS_BETTER = ("margin", "probability")
_ADAPTED = re.compile(r"adapted (?P<name>[^\s\[\]]+)\[(?P<index>\d+(?:, ?\d+)*)?\]")


class AdaptedParameter(NamedTuple):
    """One entry of θ_t, as "adapted NAME[i, j]" names it: NAME is of `Learner.adapt`'s result, [] of a number."""

    name: str
    index: tuple[int, ...]

    @classmethod
    def of(cls, target: str) -> AdaptedParameter | None:
        """What a target names, if it is one."""
        found = _ADAPTED.fullmatch(target)
        return found and cls(
            found["name"], tuple(map(int, (found["index"] or "").split(",") if found["index"] else ()))
        )


def check_target(target: str, per_query: bool = False) -> None:
    """Raise LearnerError unless `target` is one of TARGETS, or an entry of θ and queries are not asked for."""
    if AdaptedParameter.of(target):
        if per_query:
            raise LearnerError(f"target={target!r} belongs to a task, not to its queries")
    elif target.startswith("adapted "):
        raise LearnerError(
            f"target={target!r} names no entry of an adapted parameter: give 'adapted NAME[i, j]', an index for each "
            "of its dimensions, as in 'adapted classifier.weight[0, 2]'"
        )
    elif target not in TARGETS:
        raise LearnerError(f"target is one of {', '.join(TARGETS)} and 'adapted NAME[i, j]', not {target!r}")


def target_cotangents(lin: Linearization, target: str) -> Tensor:
    """∂target_m/∂f_m of every query, [T, n, C]; a task's target is the mean over its queries.

    "loss"       the outer loss; needs query labels
    "predicted"  −log p of the predicted class ŷ: the loss as if the prediction were right
    "margin"     f_ŷ − max_{c≠ŷ} f_c: how far the prediction is from another. Ties go to the lower class
    "probability"  p_ŷ, how sure the prediction is

    Raises LearnerError for a regression task with a target that needs classes.
    """
    if target == "loss":
        return lin.logit_gradients(lin.targets)
    if lin.learner.loss.regression or lin.C < 2:
        raise LearnerError(f"target={target!r} explains a predicted class among several; use target='loss'")
    first, second = lin.logits.sort(dim=-1, descending=True, stable=True).indices[..., :2].unbind(-1)
    if target == "predicted":
        return lin.logit_gradients(first)
    if target == "probability":  # ∂p_ŷ = −p_ŷ ∂(−log p_ŷ)
        sure = lin.logits.softmax(-1).gather(-1, first[..., None])
        return -sure * lin.logit_gradients(first)
    classes = torch.arange(lin.C, device=lin.device)
    return (first[..., None] == classes).to(lin.dtype) - (second[..., None] == classes).to(lin.dtype)
