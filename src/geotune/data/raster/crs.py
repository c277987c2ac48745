"""Coordinate reference systems: transformations between them, and the size of a pixel."""

from __future__ import annotations

import functools
import math

from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

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


def metres_per_pixel(crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> float | None:
    """The side of a pixel at the centre of a raster; None without georeference."""
    if crs is None or transform == Affine.identity():
        return None
    side = math.sqrt(abs(transform.a * transform.e - transform.b * transform.d))
    if crs.is_geographic:
        _, latitude = transform @ (shape[1] / 2, shape[0] / 2)
        return side * METRES_PER_DEGREE * math.sqrt(max(math.cos(math.radians(latitude)), 0.01))
    return side * float(crs.linear_units_factor[1])
