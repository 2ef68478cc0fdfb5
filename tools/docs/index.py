"""The tables of docs/reference.md: every public name, the first line of its docstring, its source.

python tools/docs/index.py
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"
HEAD = "| name | |\n| --- | --- |\n"


def indexed(text: str) -> str:
    """The page with a table under each heading, of what mkdocstrings is asked for there."""
    top, *sections = re.split(r"^(?=## )", text, flags=re.M)
    return top + "".join(map(_section, sections))


def _section(text: str) -> str:
    heading, directives = text.splitlines()[0], text[text.index(":::") :]
    asked = re.findall(r"^::: (\S+)(?:\n +options:\n +members: \[(.*)\])?", directives, re.M)
    rows = [row for name, members in asked for row in _rows(name, members)]
    return f"{heading}\n\n{HEAD}{''.join(rows)}\n{directives}"


def _rows(path: str, members: str) -> list[str]:
    """One of the name, and of a module one of each public name in it."""
    package, _, name = path.rpartition(".")
    found = getattr(import_module(package), name, None) or import_module(path)
    rows = [_row(name, found)]
    if isinstance(found, ModuleType):
        public = members.split(", ") if members else getattr(found, "__all__", None) or _defined(found)
        rows += [_row(f"{name}.{each}", getattr(found, each)) for each in public]
    return rows


def _row(name: str, found: object) -> str:
    source = inspect.getsourcefile(found) if callable(found) or isinstance(found, ModuleType) else None
    linked = f"[`{name}`](../{Path(source).relative_to(ROOT)})" if source else f"`{name}`"
    said = inspect.getdoc(found).splitlines()[0] if source else repr(found)
    return f"| {linked} | {said.replace('|', chr(92) + '|')} |\n"


def _defined(module: ModuleType) -> list[str]:
    """The public classes and functions of a module that lists none, in the order of its text."""
    return [
        name
        for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", None) == module.__name__
    ]


if __name__ == "__main__":
    PAGE.write_text(indexed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
