"""From one coordinate reference system to another."""

from __future__ import annotations

import functools

from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from geotune.errors import GeotuneError

DEGREES = CRS.from_epsg(4326)


@functools.lru_cache(maxsize=256)
def transformer(source: CRS, target: CRS) -> Transformer:
    """Between two systems, x before y; what the target cannot express becomes infinite.

    Raises `GeotuneError` where there is no way from one to the other.
    """
    try:
        return Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
    except ProjError as error:
        raise GeotuneError(
            f"there is no way from the CRS {source} to {target} ({error}); write into the files "
            "which CRS their coordinates are in"
        ) from error
