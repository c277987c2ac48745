"""What a table states about a scene before its files are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from geotune.data.raster.open_raster import Files
from geotune.data.raster.tags import find_date
from geotune.datasets.base import SPLIT_NAMES
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class SceneEntry:
    """A scene whose files are not yet opened.

    Attributes:
        files: of its image.
        label: its label file, if a table states it.
        split: train, val or test, if a table states it.
        acquired: the acquisition date in a table; None for that of the files.
        attributes: its row in a table, by column.
        fields: the text of its pattern's own fields, which the pattern of its labels may contain.
    """

    files: Files
    label: Path | None = None
    split: str | None = None
    acquired: date | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


def parse_date(text: str, where: str) -> date | None:
    """The date in a cell; None if it is empty. Raises `GeotuneError` for any other text."""
    if not text.strip():
        return None
    day = find_date(text)
    if day is None:
        raise GeotuneError(
            f"{where}: date is {text!r}; expected a date such as 2018-10-13", code="row-invalid"
        )
    return day


def parse_split(text: str, where: str) -> str | None:
    """The split in a cell; None if it is empty. Raises `GeotuneError` for any other text."""
    split = text.strip().lower()
    if split not in (*SPLIT_NAMES, ""):
        raise GeotuneError(
            f"{where}: split is {text!r}; expected {', '.join(SPLIT_NAMES)} or nothing",
            code="row-invalid",
        )
    return split or None
