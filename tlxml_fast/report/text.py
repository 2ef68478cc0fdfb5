"""Numbers, lists and p-values as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 6  # entries of a long list


def number(value: float) -> str:
    """Four significant digits, a true minus sign, and powers of ten outside 10⁻³ … 10⁷."""
    if isinstance(value, int):
        text = f"{value:,}"
    elif not math.isfinite(value):
        text = "∞" if value > 0 else "-∞" if value < 0 else "not a number"
    elif value == 0:
        text = "0"
    elif 1e-3 <= abs(value) < 1e7:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{value:.3e}".split("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa.rstrip('0').rstrip('.')} × 10{raised}"
    return text.replace("-", "−")


def signed(value: float, scale: float | None = None) -> str:
    """A score with its sign always shown; with a scale, to a thousandth of it, so that a table lines up."""
    if scale and 1e-4 <= scale < 1e6:
        decimals = max(0, 2 - math.floor(math.log10(scale)))
        text = f"{value:+,.{decimals}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]
    return ("+" if value > 0 else "") + number(value)


def percent(share: float) -> str:
    """A share as a percentage: whole, or with one digit below ten."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 9.95 or value == 0 else f"{value:.1f}%"


def anything(value: Any) -> str:
    """Any JSON value in one line: numbers as `number`, long lists shortened."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{key_label(key)} {anything(entry)}" for key, entry in value.items()) or "—"
    if isinstance(value, Sequence) and not isinstance(value, str):
        sentences = any(isinstance(entry, str) and " " in entry for entry in value)
        shown = ("; " if sentences else ", ").join(anything(entry) for entry in value[:SHOWN])
        return f"{shown}, … ({len(value):,} in all)" if len(value) > SHOWN else shown or "none"
    return str(value)


def definitions(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(term, value) rows of a nested mapping; nested keys are joined by a dot."""
    rows = []
    for key, value in section.items():
        name = f"{prefix}{key_label(key)}"
        if isinstance(value, Mapping) and value:
            rows += definitions(value, f"{name} · ")
        else:
            rows.append((name, anything(value)))
    return rows


def key_label(key: object) -> str:
    """A key as words, or as the symbol DESIGN gives it."""
    symbols = {"grad_norm": "‖∇L(ω̂)‖", "gradient_norm": "‖∇L(ω̂)‖", "delta": "δ (weight decay)"}
    return symbols.get(str(key), str(key).replace("_", " "))


def p_value(p: float) -> str:
    """p to two significant digits."""
    return f"{p:.2g}" if p >= 1e-3 else f"{p:.1g}"


def evidence(p: float) -> str:
    """A p-value in words."""
    for level, words in ((0.001, "very strong evidence"), (0.01, "strong evidence"), (0.05, "some evidence")):
        if p <= level:
            return words
    return "no clear evidence"


def verdict(excess: float, p: float, larger_is_better: bool) -> str:
    """What a group's excess influence and its corrected p-value say."""
    if p > 0.05:
        return "no clear difference from the average training task"
    side = "more" if (excess > 0) == larger_is_better else "less"
    return f"{side} helpful than the average training task: {evidence(p)}"


def plural(count: int, one: str, many: str = "") -> str:
    """1 task, 2 tasks."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shortened(name: str, length: int) -> str:
    """A name that fits a figure: printable, and at most `length` characters."""
    name = "".join(character for character in name if character.isprintable())
    return name if len(name) <= length else name[: length - 1] + "…"
