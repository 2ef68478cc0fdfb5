"""python -m tlxml_fast.backend.conformance NAME"""

from __future__ import annotations

import sys

from rich.console import Console

from ...errors import TlxError
from .. import registry
from .cases import CASES
from .run import conform, reasons, table


def main(arguments: list[str]) -> int:
    """0 if the backend is right, 1 if it is not, 2 if there is none of that name."""
    console, errors = Console(markup=False), Console(stderr=True, markup=False)
    if len(arguments) != 1 or arguments[0].startswith("-"):
        errors.print(
            f"usage: python -m tlxml_fast.backend.conformance NAME; there are {', '.join(registry.names())}"
        )
        return 2
    try:
        backend = registry.get(arguments[0])
    except TlxError as error:
        errors.print(f"error: {error}")
        return 2
    results = []
    with console.status(f"checking {backend.name}"):
        for result in conform(backend):
            results.append(result)
    console.print(table(results))
    wrong = [result for result in results if result.failure]
    for line in reasons(results):
        console.print(line, highlight=False, soft_wrap=True)
    summary = f"{backend.name}: {len(results) - len(wrong)} of {len(results)} checks passed"
    if unclaimed := [case.name for case in CASES if not any(result.case == case.name for result in results)]:
        summary += f"; not claimed, and not checked: {', '.join(unclaimed)}"
    console.print(summary, highlight=False, soft_wrap=True)
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
