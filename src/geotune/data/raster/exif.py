"""Images that viewers and annotation tools turn as their EXIF data say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from geotune.data.raster.source import RasterSource
from geotune.utils.text import pluralize


def orientation_note(sources: Iterable[RasterSource]) -> tuple[str, Path] | None:
    """What to do about images that viewers turn, and the first of them; None without any."""
    paths = dict.fromkeys(
        file.path for source in sources for file in source.band_files if file.turned
    )
    if not paths:
        return None
    first, *others = paths
    more = f", as have {pluralize(len(others), 'other image')}" if others else ""
    text = (
        f"{first}: has an EXIF orientation{more}, by which viewers turn it; rows and columns are "
        "read as they are stored: if labels were drawn on the turned image, turn its pixels "
        f"(magick mogrify -auto-orient {first.name})"
    )
    return text, first
