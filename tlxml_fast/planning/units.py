"""Numbers from and for people."""

from __future__ import annotations

from ..errors import TlxError


def whole(text: str | int, what: str, least: int = 1) -> int:
    """A whole number of at least `least`, from "1000", "1e6" or "1,000"."""
    try:
        number = float(str(text).replace(",", ""))
    except ValueError:
        number = float("nan")
    if not (number >= least and number == int(number) if abs(number) < float("inf") else False):
        raise TlxError(f"{what} is a whole number of at least {least}, such as 1000 or 1e6, not {text!r}")
    return int(number)


def time_of(seconds: float) -> str:
    """With two or three digits: 12 ms, 4.5 s, 3.2 min, 5 h, 12 d, 3 years."""
    for limit, unit, name in (
        (1, 1e-3, "ms"),
        (120, 1, "s"),
        (7200, 60, "min"),
        (172_800, 3600, "h"),
        (2 * 365 * 86_400, 86_400, "d"),
        (float("inf"), 365 * 86_400, "years"),
    ):
        if seconds < limit:
            return _figure(seconds / unit, name)
    return "for ever"


def bytes_of(size: float) -> str:
    """In powers of 1,024."""
    for name in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1000 or name == "PiB":
            return _figure(size, name) if size else "0 B"
        size /= 1024
    raise AssertionError


def flops_of(count: float) -> str:
    """In powers of 1,000."""
    for name in ("flop", "kflop", "Mflop", "Gflop", "Tflop", "Pflop", "Eflop", "Zflop"):
        if count < 1000 or name == "Zflop":
            return _figure(count, name) if count else "0 flop"
        count /= 1000
    raise AssertionError


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
