"""Where and when images were taken, as STAC items state it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import shapely
import shapely.geometry

from geotune.data.raster.outline import outline
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

MAX_POLYGONS = 50
"""More separate areas than these are stated as their convex hull."""

_DIGITS = 6
"""Decimals of a degree: 0.1 m."""


def extent_of(sources: Sequence[RasterSource]) -> dict[str, Any]:
    """The area and the dates of images, as plain values.

    `geometry` is GeoJSON in longitude and latitude, `bbox` its bounds; both are None if an image is
    not georeferenced. `start` and `end` are ISO dates, None if the dates are unknown.
    """
    days = [day for source in sources for day in _days(source)]
    known = bool(days) and all(_days(source) for source in sources)
    shape = _area(sources)
    return {
        "geometry": None if shape is None else _rounded(shapely.geometry.mapping(shape)),
        "bbox": None if shape is None else [round(x, _DIGITS) for x in shape.bounds],
        "start": min(days).isoformat() if known else None,
        "end": max(days).isoformat() if known else None,
    }


def _days(source: RasterSource) -> tuple[date, ...]:
    if source.dates:
        return source.dates
    return () if source.acquired is None else (source.acquired,)


def _area(sources: Sequence[RasterSource]) -> Any:
    """The union of the outlines; None if one is unknown."""
    if not sources or not all(source.georeferenced for source in sources):
        return None
    try:
        outlines = [shapely.geometry.shape(outline(source)) for source in sources]
    except GeotuneError:  # a local CRS
        return None
    whole = shapely.union_all([shapely.make_valid(one) for one in outlines])
    if shapely.get_num_geometries(whole) > MAX_POLYGONS:
        whole = shapely.convex_hull(whole)
    polygonal = whole.geom_type in ("Polygon", "MultiPolygon") and not whole.is_empty
    west, south, east, north = whole.bounds if polygonal else (0.0, -91.0, 0.0, 0.0)
    inside = -180 <= west <= east <= 180 and -90 <= south <= north <= 90
    return whole if inside else None


def _rounded(value: Any) -> Any:
    """A GeoJSON geometry with fewer decimals."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
