"""All checks on all cases, and what they found."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ...errors import FallbackWarning, InfluenceWarning
from ..protocol import Backend
from .cases import CASES, Case
from .checks import CHECKS, IN_FLOAT32, Check
from .comparing import Failure


@dataclass(frozen=True)
class Result:
    """What one check on one case found: the reason of a failure, or None."""

    check: str
    case: str
    failure: str | None


def conform(
    backend: Backend, cases: Sequence[Case] = CASES, checks: Sequence[Check] = CHECKS
) -> Iterator[Result]:
    """Every result, one after another. An exception a check did not expect is a failure too."""
    able = backend.capabilities()
    for case in cases:
        learner = case.learner()
        if learner.kind not in able.learners or learner.loss.name not in able.losses:
            continue
        for check in checks:
            if check in IN_FLOAT32 and "float32" not in able.dtypes:
                continue
            yield Result(check.__name__, case.name, _failure(backend, case, check))


def table(results: Sequence[Result]) -> Table:
    """How many checks each case passed, and which it did not."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("learner", "passed", "wrong"):
        made.add_column(heading)
    for case in dict.fromkeys(result.case for result in results):
        own = [result for result in results if result.case == case]
        wrong = [result.check for result in own if result.failure]
        passed = Text(f"{len(own) - len(wrong)} of {len(own)}", "red" if wrong else "green")
        made.add_row(case, passed, ", ".join(wrong))
    return made


def reasons(results: Sequence[Result]) -> Iterator[str]:
    """Why each check failed, once, with the learners it failed on."""
    for check in dict.fromkeys(result.check for result in results):
        own = [result for result in results if result.check == check]
        wrong = [result for result in own if result.failure]
        if wrong:
            where = f"all {len(own)} learners" if len(wrong) == len(own) else ", ".join(r.case for r in wrong)
            yield f"{check}: {wrong[0].failure}, on {wrong[0].case}" + (
                f"; wrong on {where}" if len(wrong) > 1 else ""
            )


def _failure(backend: Backend, case: Case, check: Check) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfluenceWarning)
        warnings.simplefilter("error", FallbackWarning)
        try:
            check(backend, case)
        except Failure as failure:
            return str(failure)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
