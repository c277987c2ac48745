"""Format numbers for display. Missing values and NaN become a dash."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geotune.utils import text

DASH = "–"
_SPACE = "\N{NO-BREAK SPACE}"


def missing(value: float | None) -> bool:
    """Whether a value is None, NaN or infinite."""
    return value is None or not math.isfinite(value)


def score(value: float | None) -> str:
    """A score between 0 and 1 with three decimals."""
    return DASH if value is None or missing(value) else f"{value:.3f}"


def number(value: float | None) -> str:
    """A number with three significant digits: `0.0123`, `48.2`, `1 234`."""
    if value is None or missing(value):
        return DASH
    return count(round(value)) if abs(value) >= 1000 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share as `61 %`, with more digits near 0 and 100 %."""
    if share is None or missing(share):
        return DASH
    value = 100 * share
    if 0 < value < 0.01:
        text = "<0.01"
    elif 0 < value < 0.1:
        text = f"{value:.2f}"
    elif 99.95 <= value < 100:
        text = ">99.9"
    elif 0.1 <= value < 9.95 or 99 <= value < 100:
        text = f"{value:.1f}"
    else:
        text = f"{value:.0f}"
    return f"{text}{_SPACE}%"


def count(value: int | None) -> str:
    """An integer in groups of three digits."""
    return DASH if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rounded(value: int) -> str:
    """A large integer in short: `1.2 million`."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g}{_SPACE}{word}"
    return count(value)


def size(value: int | None) -> str:
    """Bytes in decimal units: `1.3 GB`."""
    if value is None:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            scaled = value / factor
            return f"{scaled:.{0 if scaled >= 100 else 1}f}{_SPACE}{unit}"
    return f"{value}{_SPACE}B"


def duration(seconds: float | None) -> str:
    """Seconds as `0.8 s`, `42 s`, `12 min 5 s` or `3 h 20 min`."""
    if seconds is None or missing(seconds):
        return DASH
    return text.duration(seconds).replace(" ", _SPACE)


def listing(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
