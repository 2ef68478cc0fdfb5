"""Do the scores hang on chance: of a sketch, of the training run?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ..curvature import Fisher
from ..learners import Learner
from ..solvers import Nystrom
from .agreement import Agreement, in_words, together
from .check import Check
from .subject import Subject


def sketch(subject: Subject) -> Check:
    """The whole influence once more, from other seeds of all that is drawn: Fisher's rows, compression, Nyström.

    Graded by the median of Spearman's ρ over test tasks: good from 0.9 on, doubtful from 0.5 on (`Agreement`).
    """
    own = subject.influence
    changed: dict[str, Any] = {}
    if isinstance(own.curvature, Fisher):
        changed["curvature"] = _reseeded(own.curvature)
    if isinstance(own.inverse, Nystrom):
        changed["inverse"] = _reseeded(own.inverse)
    if own.compression is not None:
        changed["compression"] = _reseeded(own.compression)
    if not changed:
        return Check("sketch", "good", "Nothing is drawn at random: curvature and inverse are exact.")
    found = {"another seed": Agreement.of(subject.values, subject.refitted(**changed))}
    grade, values = together(found)
    words = in_words(found)
    return Check(
        "sketch",
        grade,
        f"{words[0].upper()}{words[1:]}, for {' and '.join(sorted(changed))}.",
        values,
        "take more rows a task, a larger dimension or a larger rank",
    )


def training(subject: Subject, retrained: Sequence[Learner]) -> Check:
    """The same influence on learners that were trained on the same tasks from other seeds.

    Graded as the sketch is, by the median over test tasks of the worst run. Scores that agree between runs are of the
    tasks; scores that do not are of this one model only, and can be right for it.
    """
    if not retrained:
        words = "Not measured: it takes training again (--retrain 3)."
        return Check("training seeds", "unknown", words)
    found = {
        f"run {i}": Agreement.of(subject.values, subject.refitted(learner))
        for i, learner in enumerate(retrained, start=1)
    }
    grade, values = together(found)
    words = in_words(found)
    advice = "read the scores as those of this model, and average over runs to speak of the tasks"
    return Check("training seeds", grade, f"{words[0].upper()}{words[1:]}.", values, advice)


def _reseeded(drawn: Any) -> Any:
    """The same, from another seed."""
    twin = copy.copy(drawn)
    twin.seed = drawn.seed + 1
    return twin
