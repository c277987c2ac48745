"""Coordinate reference systems: transformations between them, and the size of a pixel."""

from __future__ import annotations

import functools
import math

import numpy as np
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

from geotune.data.raster.pixel_area import PixelArea
from geotune.errors import GeotuneError

WGS84 = CRS.from_epsg(4326)

METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude, and of longitude at the equator."""


@functools.lru_cache(maxsize=256)
def transformer(source: CRS, target: CRS) -> Transformer:
    """Transformer with x before y; coordinates that `target` cannot express become infinite.

    Raises `GeotuneError` if there is no transformation between the two.
    """
    try:
        return Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
    except ProjError as error:
        raise GeotuneError(
            f"no transformation from the CRS {source} to {target} ({error}); correct the CRS of "
            "the files",
            code="crs-incompatible",
        ) from error


def bounds(transform: Affine, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """The extent (west, south, east, north) of a raster of any orientation."""
    height, width = shape
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def wrap_longitude(longitude: float) -> float:
    """The same longitude in [-180, 180]; unchanged if it is."""
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


@functools.lru_cache(maxsize=1024)
def metres_per_pixel(crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> float | None:
    """The side of a pixel on the ground at the centre of a raster; None if unknown.

    In a projected CRS it is that of the plane if areas in it are accurate to 1 % there, which they
    are not in Web Mercator far from the equator.
    """
    if crs is None or transform == Affine.identity():
        return None
    side = math.sqrt(abs(transform.a * transform.e - transform.b * transform.d))
    if crs.is_geographic:
        _, latitude = transform @ (shape[1] / 2, shape[0] / 2)
        return side * METRES_PER_DEGREE * math.sqrt(max(math.cos(math.radians(latitude)), 0.01))
    area = PixelArea(crs, transform, shape)
    if area.plane is None or not crs.is_projected:
        centre = np.array([shape[1] / 2]), np.array([shape[0] / 2])
        ground = float(area.at(*centre)[0])
        if ground > 0:  # coordinates that are invalid in the CRS give none
            return math.sqrt(ground)
    return side * float(crs.linear_units_factor[1]) if crs.is_projected else None
