"""Phrases that many messages share."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence


def pluralize(count: int, word: str) -> str:
    """`1 scene`, `2 scenes`, `12,000 scenes`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def join_some(names: Sequence[str], max_names: int = 5) -> str:
    """The first names and the number of omitted ones: `a, b and 3 more`."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more


def describe_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """Which names two lists differ by: `without a and with b, c`; empty if by none."""
    gone, new = [n for n in before if n not in now], [n for n in now if n not in before]
    named = (("without", gone), ("with", new))
    return " and ".join(f"{what} {join_some(names)}" for what, names in named if names)


def nfc(text: str) -> str:
    """Text in Unicode's composed form; file names may have another, in which `é` is two letters."""
    return unicodedata.normalize("NFC", text)


def word(text: str) -> str:
    """Text as a part of a file name: all but letters and digits becomes `_`."""
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def duration(seconds: float) -> str:
    """Seconds as `0.8 s`, `42 s`, `12 min 5 s` or `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def similar_names(
    name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.5
) -> list[str]:
    """The known names that a misspelt one may mean, best first; case does not matter."""
    by_folded: dict[str, str] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), each)
    near = difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=cutoff)
    return [by_folded[folded] for folded in near]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean ships?`, or nothing if no known name is similar."""
    near = similar_names(name, known)
    return f"; did you mean {near[0]}?" if near else ""


def suggest(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """`did you mean ships?`, or which names are expected if none is similar."""
    known = list(known)
    near = similar_names(name, known, count=count)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected one of {join_some(known, 20)}" if known else "there are none"
