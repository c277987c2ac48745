"""Names of the files that a written scene leaves."""

from __future__ import annotations

FOLDER = "scenes"
"""Of the scenes' files."""

WRITTEN = "written"
"""Of a record for each written scene: its files, their hashes, its grid."""


def card_name(number: int, count: int) -> str:
    """The file of the STAC item of a model, of `count`."""
    return "card.json" if count == 1 else f"card_{number}.json"
