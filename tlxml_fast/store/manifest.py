"""What a store was made with, and the first difference from what a run brings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files import read_json, write_json
from .checks import reading
from .layout import MANIFEST

FORMAT = 1
ABSENT = object()
HASH = re.compile(r"[0-9a-f]{24,}")


@dataclass(frozen=True)
class Manifest:
    """What every tensor of a store depends on, besides its task.

    context      must be the same in every run: parameters, learner, dtype, settings, build
    choices      made by the first run and followed by all: SIMD level, threads, algorithms
    shard_size   consecutive tasks in a shard
    """

    context: dict[str, Any]
    choices: dict[str, Any]
    shard_size: int
    format: int = FORMAT

    @cached_property
    def digest(self) -> str:
        """In the header of every file of the store."""
        return digest(asdict(self))

    def write(self, root: Path) -> None:
        write_json(root / MANIFEST, {"tlxml_fast": "store", **asdict(self), "sha256": self.digest})

    @classmethod
    def read(cls, root: Path) -> Manifest | None:
        """The store's, or None where it has none; StoreError where it is not what a run wrote."""
        path = root / MANIFEST
        if not path.exists():
            return None
        recover = "deleting it lets the run that made the store write it again"
        with reading(path, recover):
            found = read_json(path)
        if not isinstance(found, dict) or found.pop("tlxml_fast", None) != "store":
            raise StoreError(f"{path} is damaged, or not the manifest of a store")
        checksum = found.pop("sha256", None)
        if checksum != digest(found):
            raise StoreError(f"{path} is damaged: its content does not match its checksum; {recover}")
        if found.get("format") != FORMAT:
            raise StoreError(
                f"{root} is a store of format {found.get('format')}, and format {FORMAT} is read here"
            )
        return cls(**found)

    def require_context(self, root: Path, context: Mapping[str, Any]) -> None:
        """Raise StoreError with the first difference."""
        if difference := first_difference(self.context, plain(context)):
            where, old, new = difference
            raise StoreError(f"{root} was made with {where} {_words(old)}, and this run has {_words(new)}")

    def require_choices(
        self, root: Path, own: Mapping[str, Any], possible: Mapping[str, Collection[Any]]
    ) -> None:
        """Raise StoreError with the first of the store's choices that this run does not know or cannot follow.

        own        the choices this run would make: the names it knows
        possible   for some of them, the values that can be followed here
        """
        for name in [*self.choices, *own]:
            if name not in self.choices or name not in own:
                which = "the store" if name in self.choices else "this run"
                raise StoreError(f"{root} was made by another version: only {which} has a choice of {name}")
            value = self.choices[name]
            if name in possible and value not in possible[name]:
                able = ", ".join(map(_words, possible[name]))
                raise StoreError(
                    f"{root} was made with {name} {_words(value)}, which cannot be followed here (possible: {able})"
                )


def plain(value: Any) -> Any:
    """As it comes back from JSON; StoreError where it is none."""
    try:
        return json.loads(canonical(value))
    except (TypeError, ValueError) as error:
        raise StoreError(f"what a store was made with is written as JSON: {error}") from None


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, in 64 hexadecimal digits; the order of keys does not matter."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def first_difference(old: Any, new: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ, as a.b.c, and what each has there, which may be ABSENT."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(k, old.get(k, ABSENT), new.get(k, ABSENT)) for k in dict.fromkeys([*old, *new])]
        pairs.sort(key=lambda pair: ABSENT in pair)  # what both have says more: the kind of a learner, say
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), *both) for i, both in enumerate(zip(old, new, strict=True))]
    elif old is not ABSENT and new is not ABSENT and canonical(old) == canonical(new):
        return None
    else:
        return where, old, new
    found = (first_difference(a, b, f"{where}.{key}" if where else key) for key, a, b in pairs)
    return next(filter(None, found), None)


def _words(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    if isinstance(value, str):
        return f"{value[:12]}…" if HASH.fullmatch(value) else repr(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
