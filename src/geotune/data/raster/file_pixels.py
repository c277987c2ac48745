"""Labels in pixels of an image file that is resampled to another grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster.control_points import on_grid_points, to_coordinates
from geotune.data.raster.crs import bounds, transformer
from geotune.data.raster.longitude_axis import longitude_axis
from geotune.data.raster.source import RasterSource, apply_affine


def as_stored(raster: RasterSource) -> RasterSource:
    """The image on the grid of its first file."""
    if raster.file_grid is None:
        return raster
    crs, transform, shape = raster.file_grid
    files = tuple(replace(file, grid=None) for file in raster.band_files)
    return replace(
        raster,
        band_files=files,
        crs=crs,
        transform=transform,
        grid_shape=shape,
        file_grid=None,
    )


def from_file_pixels(raster: RasterSource, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns and rows `(N, 2)` in the scene of those in its first file."""
    if raster.file_grid is None or not len(points):
        return points
    assert raster.crs is not None
    grid = (raster.crs, raster.transform, raster.shape)
    crs, transform, _ = raster.file_grid
    if crs is None and raster.control_points is not None:
        xs, ys = to_coordinates(on_grid_points(raster.control_points, *grid), points).T
    else:
        xs, ys = apply_affine(transform, points[:, 0], points[:, 1])
        if crs is not None and crs != raster.crs:
            xs, ys = transformer(crs, raster.crs).transform(xs, ys)
            axis = longitude_axis(raster.crs)
            if axis is not None:
                west, _, east, _ = bounds(raster.transform, raster.shape)
                xs = xs + axis.nearest_turn(xs, (west + east) / 2)
    return np.stack(apply_affine(~raster.transform, xs, ys), axis=1)
