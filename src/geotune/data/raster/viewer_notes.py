"""Notes about images whose stored pixels are not what a viewer shows: turned, or with a palette."""

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


def viewer_notes(sources: Iterable[RasterSource]) -> list[tuple[str, Path]]:
    """What to do about images that are read by index or turned by viewers, and the first of them.

    One note for all images of a kind.
    """
    files = [file for source in sources for file in source.band_files]
    notes = []
    if indexed := dict.fromkeys(file.path for file in files if file.indexed):
        first, more = _first_and_more(list(indexed))
        text = (
            f"{first}: has a palette{more}, and is read by index, whatever the colours; if they "
            f"are the image, expand them to bands (gdal_translate -expand rgb {first.name} new.tif)"
        )
        notes.append((text, first))
    if turned := dict.fromkeys(file.path for file in files if file.turned):
        first, more = _first_and_more(list(turned))
        text = (
            f"{first}: has an EXIF orientation{more}, by which viewers turn it; rows and columns "
            "are read as they are stored: if labels were drawn on the turned image, turn its "
            f"pixels (magick mogrify -auto-orient {first.name})"
        )
        notes.append((text, first))
    return notes


def _first_and_more(paths: list[Path]) -> tuple[Path, str]:
    first, *others = paths
    return first, f", as have {pluralize(len(others), 'other image')}" if others else ""
