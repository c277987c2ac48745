"""Points: a CSV for each image with the objects' middles, `x,y` in pixels.

x,y
68,36
68.5,4
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from geotune.data.objects.annotations import Annotation, Found
from geotune.data.objects.options import Options
from geotune.data.objects.text import numbers, read_text, rectangle
from geotune.data.raster import RasterSource
from geotune.data.vector_file import CLASS_FIELDS
from geotune.types import GeotuneError


def read_points(path: Path, raster: RasterSource, options: Options) -> Found:
    """Objects of one image: points as boxes of `point_size`; an empty file holds none.

    A column called class, label or classname has the class.
    """
    text = read_text(path)
    if not text.strip():
        return Found([])
    try:
        (_, header), *rows = _rows(text)
    except csv.Error as error:
        raise GeotuneError(f"{path}: cannot be read as a CSV ({error}); write it anew") from error
    header = [name.strip().lower() for name in header]
    if not {"x", "y"} <= set(header):
        raise GeotuneError(
            f"{path}: its first line is {', '.join(header)[:80]!r}, expected the columns x and y "
            "(in pixels of the image)"
        )
    named = next((header.index(name) for name in CLASS_FIELDS if name in header), None)
    half = options.point_pixels(raster) / 2
    found = []
    for place, row in rows:
        if len(row) != len(header):
            raise GeotuneError(
                f"{path}: {place}: has {len(row)} values for {len(header)} columns; mend the line"
            )
        x, y = numbers([row[header.index(axis)] for axis in "xy"], path, place)
        found.append(
            Annotation(
                rectangle(x - half, y - half, x + half, y + half),
                place,
                None if named is None else row[named],
            )
        )
    return Found(found)


def _rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Of each row that is not empty its place, `line 3`, and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""))
    for row in reader:
        if any(cell.strip() for cell in row):
            yield f"line {reader.line_num}", row
