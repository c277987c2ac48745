"""Phrases that many messages share."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def pluralize(count: int, word: str) -> str:
    """`1 scene`, `2 scenes`, `12,000 scenes`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def join_some(names: Sequence[str], max_names: int = 5) -> str:
    """The first names and the number of omitted ones: `a, b and 3 more`."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more


def nfc(text: str) -> str:
    """Text in Unicode's composed form; file names may have another, in which `é` is two letters."""
    return unicodedata.normalize("NFC", text)
