"""Images whose values are indices of a palette, not colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from geotune.data.raster.header import RasterHeader
from geotune.data.raster.source import RasterSource
from geotune.utils.text import pluralize


def is_indexed(header: RasterHeader) -> bool:
    """Whether the first band has a palette whose colours are not the grey of their index.

    A band that its file describes has a meaning of its own, such as land cover.
    """
    if header.palette is None or header.descriptions[0] is not None:
        return False
    return any(
        (red, green, blue) != (i, i, i) for i, (red, green, blue, _) in header.palette.items()
    )


def palette_note(sources: Iterable[RasterSource]) -> tuple[str, Path] | None:
    """What to do about images that are read by index, and the first of them; None without any."""
    paths = dict.fromkeys(
        file.path for source in sources for file in source.band_files if file.indexed
    )
    if not paths:
        return None
    first, *others = paths
    more = f", as have {pluralize(len(others), 'other image')}" if others else ""
    text = (
        f"{first}: has a palette{more}, and is read by index, whatever the colours; if they are "
        f"the image, expand them to bands (gdal_translate -expand rgb {first.name} new.tif)"
    )
    return text, first
