"""Where and when images were taken, as STAC items state it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from rasterio.crs import CRS

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.outline import outline
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

MAX_POLYGONS = 50
"""More separate areas than these are stated as their convex hull."""

MAX_OUTLINES = 500
"""The area of more images is the convex hull of their corners: a union would take minutes."""

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
        whole = _union(sources) if len(sources) <= MAX_OUTLINES else _hull(sources)
    except GeotuneError:  # a local CRS
        return None
    polygonal = whole.geom_type in ("Polygon", "MultiPolygon") and not whole.is_empty
    west, south, east, north = whole.bounds if polygonal else (0.0, -91.0, 0.0, 0.0)
    inside = -180 <= west <= east <= 180 and -90 <= south <= north <= 90
    return whole if inside else None


def _union(sources: Sequence[RasterSource]) -> Any:
    outlines = [shapely.geometry.shape(outline(source)) for source in sources]
    whole = shapely.union_all([shapely.make_valid(one) for one in outlines])
    return (
        whole if shapely.get_num_geometries(whole) <= MAX_POLYGONS else shapely.convex_hull(whole)
    )


def _hull(sources: Sequence[RasterSource]) -> Any:
    """The convex hull of the corners, for each coordinate reference system at once."""
    groups: dict[CRS, list[RasterSource]] = {}
    for source in sources:
        groups.setdefault(source.crs or WGS84, []).append(source)
    points = [np.stack(_corners(crs, each), axis=1) for crs, each in groups.items()]
    return shapely.convex_hull(shapely.multipoints(np.concatenate(points)))


def _corners(
    crs: CRS, sources: Sequence[RasterSource]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of the corners of images in one coordinate reference system."""
    affine = np.array([tuple(source.transform)[:6] for source in sources]).T[..., None]
    height, width = np.array([source.shape for source in sources]).T[..., None]
    columns, rows = width * np.array([0, 1, 1, 0]), height * np.array([0, 0, 1, 1])
    xs = affine[0] * columns + affine[1] * rows + affine[2]
    ys = affine[3] * columns + affine[4] * rows + affine[5]
    longitudes, latitudes = transformer(crs, WGS84).transform(xs.ravel(), ys.ravel())
    return longitudes, latitudes


def _rounded(value: Any) -> Any:
    """A GeoJSON geometry with fewer decimals."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
