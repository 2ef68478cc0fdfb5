"""What can be read from scores, given the grades of the checks."""

from __future__ import annotations

from collections.abc import Sequence

from .check import GRADES, Check, worst

RANKS = "which tasks help or harm most"
SIGNS = "the sign of a score"
CHANGES = "the size of the change that removing tasks makes"
# Readings of scores, and the checks that each rests on.
READINGS = {
    RANKS: ("residuals", "confidence", "damping", "rank", "sketch"),
    SIGNS: ("residuals", "confidence", "damping", "sketch", "stationarity"),
    CHANGES: (
        "residuals", "confidence", "damping", "damped part", "stationarity", "negative curvature", "Gauss-Newton",
        "linearity", "tasks",
    ),
}  # fmt: skip
# Ranks by a curvature that is not the Hessian's are at worst doubtful: those of damped Gauss-Newton curvature are of a
# proximal objective (Bae et al. 2022), though perhaps not of retraining.
SOFT = ("Gauss-Newton", "negative curvature")
GROUPS = "which groups of tasks help more than others, on average"
RUNS = "that another training run would agree"
MOST_ADVICE = 2


def trust(checks: Sequence[Check]) -> dict[str, str]:
    """A grade for every reading: the worst of the checks it rests on.

    Comparisons of groups are one grade above what hangs on settings and chance in the ranks of single tasks, since
    noise averages out of means; another curvature than the Hessian's, systems that were not solved, and confidence that
    leaves no curvature do not.
    """
    grades = {check.name: check.grade for check in checks}
    found = {
        reading: worst(grades.get(name, "unknown") for name in names) for reading, names in READINGS.items()
    }
    soft = worst(grades.get(name, "unknown") for name in SOFT)
    soft = "doubtful" if soft == "bad" else soft
    ranks = found[RANKS]
    better = GRADES[max(0, GRADES.index(ranks) - 1)] if ranks != "unknown" else ranks
    found[RANKS] = worst([ranks, soft])
    found[GROUPS] = worst(
        [better, soft, *(grades.get(name, "unknown") for name in ("residuals", "confidence"))]
    )
    found[RUNS] = grades.get("training seeds", "unknown")
    return found


def in_sentences(checks: Sequence[Check]) -> list[str]:
    """Two to four sentences: how many checks are how good, what can be read, and what to do."""
    counted = [
        f"{len(names)} {grade}" + (f" ({', '.join(names)})" if grade in ("doubtful", "bad") else "")
        for grade in GRADES
        if (names := [check.name for check in checks if check.grade == grade])
    ]
    made = [f"Of {len(checks)} checks {_listed(counted)}."]
    readings = trust(checks)
    of = {grade: [reading for reading, found in readings.items() if found == grade] for grade in GRADES}
    parts = [
        f"{words} {_listed(of[grade])}"
        for grade, words in (("good", "to be trusted:"), ("doubtful", "with care:"), ("bad", "not:"))
        if of[grade]
    ]
    if not of["good"] and not of["doubtful"]:
        made.append("Nothing can be read from these scores.")
    elif parts:
        made.append("; ".join(["".join([parts[0][0].upper(), parts[0][1:]]), *parts[1:]]) + ".")
    if of["unknown"]:
        made.append(f"Not measured: {_listed(of['unknown'])}.")
    ranked = sorted(checks, key=lambda check: -_severity(check))
    advice = [f"{check.advice} ({check.name})" for check in ranked if _severity(check) and check.advice]
    if advice:
        text = "; ".join(advice[:MOST_ADVICE])
        made.append(f"{text[0].upper()}{text[1:]}.")
    return made


def _severity(check: Check) -> int:
    return {"bad": 2, "doubtful": 1}.get(check.grade, 0)


def _listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
