"""Alignment of a label raster or quality mask with the grid of its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from geotune.data.raster.crs import transformer
from geotune.data.raster.io import Grid
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.errors import GeotuneError

GRID_TOLERANCE = 0.1
"""Maximum offset in pixels between two grids that count as the same."""


def align_to_grid(
    path: Path, raster: RasterSource, handle: DatasetReader, *, by_pixel: bool = False
) -> tuple[Grid | None, bool, list[str]]:
    """Compare the grid of the file `path`, opened as `handle`, with that of the image `raster`.

    Args:
        path: the file of labels or of a quality mask.
        raster: the image.
        handle: the open file.
        by_pixel: match pixels by row and column, whatever the georeference.

    Returns the image's grid if the file must be resampled to it, whether the two overlap, and
    notes for the user. Raises `GeotuneError` if the two cannot be aligned.
    """
    if handle.crs is not None and raster.crs is None and not by_pixel:
        raise GeotuneError(
            f"{raster.path}: has no CRS, but its labels {path} have one ({handle.crs}); "
            "assign the image a CRS (gdal_edit.py -a_srs) or use labels without one",
            code="crs-missing",
            file=raster.path,
        )
    grid: Grid | None = None
    overlaps = True
    notes: list[str] = []
    if not by_pixel and raster.georeferenced and _is_georeferenced(handle):
        assert raster.crs is not None
        if not _same_grid(raster, handle):
            grid = (raster.crs, raster.transform, raster.shape)
            overlaps = _overlap(path, raster, handle)
            notes.append(f"{path}: has another grid than {raster.path}; reprojected to it")
    if grid is None and handle.shape != raster.shape:
        raise GeotuneError(
            f"{path}: has {handle.height}x{handle.width} pixels, but its image {raster.path} has "
            f"{raster.shape[0]}x{raster.shape[1]}; the two must have the same size",
            code="grid-mismatch",
            file=path,
        )
    return grid, overlaps, notes


def _is_georeferenced(handle: DatasetReader) -> bool:
    return handle.crs is not None and handle.transform != Affine.identity()


def _same_grid(raster: RasterSource, handle: DatasetReader) -> bool:
    if raster.crs != handle.crs:
        return False
    height, width = raster.shape
    cols, rows = np.array([0.0, width, 0, width]), np.array([0.0, 0, height, height])
    xs, ys = apply_affine(~handle.transform, *apply_affine(raster.transform, cols, rows))
    return bool(np.hypot(xs - cols, ys - rows).max() < GRID_TOLERANCE)


def _overlap(path: Path, raster: RasterSource, handle: DatasetReader) -> bool:
    """Whether any of a coarse grid of points of the image lies in the file.

    Raises `GeotuneError` if the file's CRS cannot express the image's location.
    """
    height, width = raster.shape
    cols, rows = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
    xs, ys = apply_affine(raster.transform, cols.ravel(), rows.ravel())
    assert raster.crs is not None and handle.crs is not None
    # points that the other CRS cannot express become infinite
    xs, ys = transformer(raster.crs, handle.crs).transform(xs, ys)
    if not (np.isfinite(xs) & np.isfinite(ys)).any():
        raise GeotuneError(
            f"{raster.path}: lies outside the CRS of its labels {path} ({handle.crs}); check that "
            f"its coordinates are in its CRS ({raster.crs})",
            code="crs-incompatible",
            file=raster.path,
        )
    with np.errstate(invalid="ignore"):
        cols, rows = apply_affine(~handle.transform, xs, ys)
    inside = (cols > 0) & (cols < handle.width) & (rows > 0) & (rows < handle.height)
    return bool(inside.any())
