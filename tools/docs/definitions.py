"""An extension of griffe: the aligned definitions of our docstrings become lists.

name   what it is,
       over as many lines as it takes
"""

from __future__ import annotations

import re
from typing import Any

import griffe

DEFINITION = re.compile(r"(\S[^.;]{0,60}?)\s{2,}(\S.*)")


class Definitions(griffe.Extension):
    """Rewrites every docstring as Markdown before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Lines "name  text" as list items, with the lines that are indented under them."""
    made: list[str] = []
    inside = False
    for line in text.splitlines():
        found = DEFINITION.fullmatch(line)
        if found:
            made += ([] if inside else [""]) + [f"- `{found[1].strip()}` — {found[2]}"]
            inside = True
        elif inside and line.startswith(" " * 4):
            made.append(f"    {line.strip()}")
        else:
            made += [""] * (inside and bool(line.strip())) + [line]
            inside = False
    return "\n".join(made)
