"""Bringing images to a stated resolution, or to the grid of another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio.crs import CRS
from rasterio.transform import Affine, array_bounds
from rasterio.warp import calculate_default_transform, transform_bounds

from geotune.data.raster.io import Grid
from geotune.errors import GeotuneError

if TYPE_CHECKING:
    from geotune.data.raster.source import RasterSource

WORTH = 0.5
"""Pixels by which a grid has to drift over a scene for its pixels to be computed anew."""


def at_resolution(source: RasterSource, metres: float) -> RasterSource:
    """The image with pixels of `metres`, in its own CRS; one in degrees in its UTM zone.

    An image that has that resolution already keeps its pixels as they are. Raises `GeotuneError`
    for one that does not say where it is.
    """
    if not source.georeferenced:
        raise GeotuneError(
            f"{source.path}: does not say where on Earth it is, so that it cannot be brought to "
            f"data.resolution {metres:g} m; leave data.resolution out"
        )
    assert source.crs is not None
    if source.crs.is_geographic:
        return on_grid(source, _in_metres(source, metres))
    assert source.gsd_m is not None
    height, width = source.shape
    factor = metres / source.gsd_m
    if abs(factor - 1) * max(height, width) < WORTH:
        return source
    transform = source.transform @ Affine.scale(factor)
    shape = (max(1, round(height / factor)), max(1, round(width / factor)))
    return on_grid(source, (source.crs, transform, shape))


def on_grid(source: RasterSource, grid: Grid) -> RasterSource:
    """The image with its pixels computed anew on another grid (see `handles.warped_values`)."""
    crs, transform, shape = grid
    if (crs, transform, shape) == (source.crs, source.transform, source.shape):
        return source
    if not source.georeferenced:
        raise GeotuneError(
            f"{source.path}: does not say where on Earth it is, so that it cannot be brought to "
            "the grid of the other files of its scene; georeference it"
        )
    places = tuple(replace(place, grid=grid) for place in source.band_files)
    return replace(source, band_files=places, crs=crs, transform=transform, shape=shape)


def _in_metres(source: RasterSource, metres: float) -> Grid:
    """A grid of the UTM zone at the image's middle that covers the image."""
    height, width = source.shape
    box = array_bounds(height, width, source.transform)
    west, south, east, north = transform_bounds(source.crs, CRS.from_epsg(4326), *box)
    x, y = (west + east) / 2, (south + north) / 2
    zones = query_utm_crs_info("WGS 84", AreaOfInterest(x, y, x, y), contains=True)
    if not zones:
        raise GeotuneError(
            f"{source.path}: lies at latitude {y:.1f}, where there is no UTM zone; bring it to a "
            "CRS in metres, or leave data.resolution out"
        )
    crs = CRS.from_epsg(int(zones[0].code))
    transform, columns, rows = calculate_default_transform(
        source.crs, crs, width, height, *box, resolution=metres
    )
    return crs, transform, (rows, columns)
