"""Resampling images to a resolution, or to the grid of another image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform, transform_bounds

from geotune.data.raster.control_points import MIN_POINTS, ControlPoints
from geotune.data.raster.crs import WGS84, bounds, metres_per_pixel, wrap_longitude
from geotune.data.raster.io import Grid, open_dataset
from geotune.data.raster.longitude_axis import centre
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

MIN_DRIFT = 0.5
"""Pixels by which two grids must drift apart over an image for it to be resampled."""


def at_resolution(source: RasterSource, gsd_m: float) -> RasterSource:
    """Resample an image to pixels of `gsd_m`, in its own CRS, or from degrees to its UTM zone.

    One with only ground control points is warped by them.
    An image that has this resolution is returned unchanged. Raises `GeotuneError` for one without
    georeference.
    """
    if source.control_points is not None:
        return on_grid(source, _control_grid(source, source.control_points, gsd_m))
    if not source.georeferenced:
        advice = "remove data.resolution"
        if open_dataset(source.path).rpcs is not None:
            advice = "it has rational polynomial coefficients: orthorectify it (gdalwarp -rpc)"
        raise GeotuneError(
            f"{source.path}: has no georeference, so it cannot be resampled to data.resolution "
            f"{gsd_m:g} m; {advice}",
            code="crs-missing",
            key="data.resolution",
            file=source.path,
        )
    assert source.crs is not None
    if source.crs.is_geographic:
        return on_grid(source, _utm_grid(source, gsd_m))
    assert source.gsd_m is not None
    height, width = source.shape
    factor = gsd_m / source.gsd_m
    if abs(factor - 1) * max(height, width) < MIN_DRIFT:
        return source
    transform = source.transform @ Affine.scale(factor)
    shape = (max(1, round(height / factor)), max(1, round(width / factor)))
    return on_grid(source, (source.crs, transform, shape))


def on_grid(source: RasterSource, grid: Grid) -> RasterSource:
    """Resample an image bilinearly to another grid (see `raster.io.open_warped`)."""
    crs, transform, shape = grid
    if (crs, transform, shape) == (source.crs, source.transform, source.shape):
        return source
    if not source.georeferenced and source.control_points is None:
        raise GeotuneError(
            f"{source.path}: has no georeference, so it cannot be resampled to the grid of the "
            "other files of its scene; georeference it",
            code="crs-missing",
            file=source.path,
        )
    files = tuple(replace(file, grid=grid) for file in source.band_files)
    file_grid = (source.crs, source.transform, source.grid_shape)
    return replace(
        source,
        band_files=files,
        crs=crs,
        transform=transform,
        grid_shape=shape,
        file_grid=file_grid,
    )


def on_one_grid(sources: Sequence[RasterSource], *, regrid: bool) -> list[RasterSource]:
    """Bring the images of one scene to the grid of the first.

    With `regrid` the others are resampled; otherwise raises `GeotuneError` if their grids differ.
    """
    first = sources[0]
    if regrid:
        grid = (first.crs, first.transform, first.shape)
        return [first, *(on_grid(other, grid) for other in sources[1:])]
    for other in sources[1:]:
        check_grids(first, other, "files of one scene")
    return list(sources)


def check_grids(
    first: RasterSource, other: RasterSource, relation: str, *, factor: int = 1
) -> None:
    """Raise `GeotuneError` unless two images have the same grid.

    The pixels of `other` are `factor` times as large. `relation` describes the two in the message.
    """
    shape = tuple(factor * side for side in other.shape)
    finer = tuple(other.transform @ Affine.scale(1 / factor))[:6]
    for name, found, other_found, expected in (
        ("pixels (H, W)", first.shape, other.shape, shape),
        ("CRS", first.crs, other.crs, other.crs),
        ("transform", tuple(first.transform)[:6], tuple(other.transform)[:6], finer),
    ):
        if found != expected:
            raise GeotuneError(
                f"{first.path} and {other.path}: {relation}, but their {name} differ "
                f"({found} and {other_found}); resample them to one grid with data.resolution",
                code="grid-mismatch",
                key="data.resolution",
                file=other.path,
            )


def _utm_grid(source: RasterSource, gsd_m: float) -> Grid:
    """A grid that covers the image in the UTM zone of its centre."""
    height, width = source.shape
    assert source.crs is not None
    crs, own_transform = centre(source.crs, source.transform, source.shape)
    box = bounds(own_transform, source.shape)
    west, south, east, north = transform_bounds(source.crs, WGS84, *box)
    utm = _utm_zone(source, (west + east) / 2, (south + north) / 2)
    transform, columns, rows = calculate_default_transform(
        crs, utm, width, height, *box, resolution=gsd_m
    )
    return utm, transform, (rows, columns)


def _control_grid(source: RasterSource, control: ControlPoints, gsd_m: float) -> Grid:
    """A north-up grid that covers an image, in the CRS of its points, or from degrees in UTM."""
    if len(control.points) < MIN_POINTS:
        raise GeotuneError(
            f"{source.path}: has {len(control.points)} ground control points; at least "
            f"{MIN_POINTS} are needed to resample it to data.resolution: warp it (gdalwarp)",
            code="crs-missing",
            key="data.resolution",
            file=source.path,
        )
    crs = control.crs
    if crs.is_geographic:
        points = control.in_crs(crs)
        x, y = (float(np.mean([getattr(p, axis) for p in points])) for axis in "xy")
        crs = _utm_zone(source, x, y)
    points = control.in_crs(crs)
    height, width = source.shape
    transform, columns, rows = calculate_default_transform(crs, crs, width, height, gcps=points)
    native_m = metres_per_pixel(crs, transform, (rows, columns))
    if native_m is None:
        raise GeotuneError(
            f"{source.path}: the CRS of its ground control points ({crs}) has no metres, so it "
            "cannot be resampled to data.resolution; warp it (gdalwarp)",
            code="crs-incompatible",
            key="data.resolution",
            file=source.path,
        )
    side = transform.a * gsd_m / native_m
    transform, columns, rows = calculate_default_transform(
        crs, crs, width, height, gcps=points, resolution=side
    )
    return crs, transform, (rows, columns)


def _utm_zone(source: RasterSource, longitude: float, y: float) -> CRS:
    x = wrap_longitude(longitude)
    zones = query_utm_crs_info("WGS 84", AreaOfInterest(x, y, x, y), contains=True)
    if not zones:
        raise GeotuneError(
            f"{source.path}: lies at latitude {y:.1f}, outside the UTM zones; reproject it to a "
            "CRS in metres, or remove data.resolution",
            code="crs-incompatible",
            key="data.resolution",
            file=source.path,
        )
    return CRS.from_epsg(int(zones[0].code))
