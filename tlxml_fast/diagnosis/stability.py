"""Do ranks hang on the damping, or on how many directions are kept?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..errors import CurvatureError
from ..solvers import FittedInverse
from ..solvers.dense import FittedDense
from ..solvers.lanczos import FittedLanczos
from .agreement import Agreement, in_words, together
from .check import Check, worst
from .subject import Subject

Inverses = dict[str, Callable[[], FittedInverse]]


def damping(subject: Subject) -> Check:
    """Ranks at a tenth of the damping and at ten times of it, against the run's own; from the same factorisation.

    Nothing in the theory fixes λ to a decade. Graded by the worse of the two medians of Spearman's ρ over test tasks:
    good from 0.9 on, doubtful from 0.5 on (`Agreement`).
    """
    value = subject.certificate.damping
    if not value:
        return Check("damping", "unknown", "The inverse has no damping to vary.")
    others: Inverses = {
        "at λ/10": partial(subject.inverse.at, value / 10),
        "at 10λ": partial(subject.inverse.at, value * 10),
    }
    found = _compared("damping", subject, others, "choose the damping by an experiment with known answers")
    values = {"damping": value, "effective_rank": subject.certificate.effective_rank, **found.values}
    return replace(found, values=values)


def rank(subject: Subject) -> Check:
    """Ranks by pseudo-inverses of half and of twice as many directions, against the run's own.

    Of a damped `Dense` the number is its effective rank Σ λ/(λ + damping), and the pseudo-inverse of that many is
    compared too. `Lanczos` knows no more directions than it kept: half of them only. Graded as the damping is.
    """
    inverse = subject.inverse
    if isinstance(inverse, FittedLanczos):
        counts = [len(inverse.eigenvalues) // 2]
    elif isinstance(inverse, FittedDense):
        damped, most = inverse.damping > 0, int(subject.significant(inverse.eigenvalues).sum())
        kept = max(1, round(inverse.effective_rank)) if damped else int((inverse.h != 0).sum())
        counts = [kept // 2, *([kept] if damped else []), min(2 * kept, most)]
    else:
        return Check("rank", "unknown", "The inverse does not know the eigen-directions.")
    others: Inverses = {
        f"with {count:,} directions": partial(inverse.of_rank, count) for count in counts if count >= 1
    }
    return _compared("rank", subject, others, "report group means, or what both choices agree on")


def _compared(name: str, subject: Subject, others: Inverses, advice: str) -> Check:
    """The run's scores against those by other inverses; one that cannot be had is said."""
    found, failures = {}, []
    for label, make in others.items():
        try:
            found[label] = Agreement.of(subject.values, subject.values_by(make()))
        except CurvatureError as error:
            failures.append(f"{label} cannot be had: {error}")
    grade, values = together(found)
    words = in_words(found)
    verdict = (
        "; ".join([*([words[0].upper() + words[1:]] if words else []), *failures])
        or "There is no other choice."
    )
    if failures:
        grade = worst([grade, "doubtful"]) if found else "unknown"
    return Check(name, grade, f"{verdict.rstrip('.')}.", values, advice)
