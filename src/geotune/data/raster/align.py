"""Alignment of a label raster or quality mask with the grid of its image."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.data.raster.control_points import ControlPoints, on_grid_points
from geotune.data.raster.crs import bounds, transformer
from geotune.data.raster.header import RasterHeader
from geotune.data.raster.io import Grid
from geotune.data.raster.longitude_axis import longitude_axis
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.errors import GeotuneError

GRID_TOLERANCE = 0.1
"""Maximum offset in pixels between two grids that count as the same."""

WARP = (
    "it only has ground control points: set data.resolution to warp it by them, or warp it before "
    "(gdalwarp)"
)
"""Advice for an image whose labels have coordinates."""

NOT_LOCATED = {
    True: "has no georeference, unlike",
    False: "has a georeference, unlike",
}
"""How a file differs from an image that has a georeference, or has none."""


def align_to_grid(
    path: Path, raster: RasterSource, header: RasterHeader, *, by_pixel: bool = False
) -> tuple[Grid | None, bool, list[str]]:
    """Compare the grid of the file `path` with that of the image `raster`.

    A file without CRS is in that of the image. Pixels are matched by row and column if the grids
    are the same, or one of the two has no georeference.

    Args:
        path: the file of labels or of a quality mask.
        raster: the image.
        header: the header of `path`.
        by_pixel: match pixels by row and column also on another grid, except one that covers the
            same ground, such as the same rows from south to north.

    Returns the image's grid if the file must be resampled to it, whether the two overlap, and
    notes for the user. Raises `GeotuneError` if the two cannot be aligned.
    """
    if header.crs is not None and raster.crs is None and not by_pixel:
        advice = "assign the image a CRS (gdal_edit.py -a_srs) or use a file without one"
        if raster.control_points is not None:
            advice = WARP
        raise GeotuneError(
            f"{raster.path}: has no CRS, but {path} has one ({header.crs}); {advice}",
            code="crs-missing",
            file=raster.path,
        )
    if raster.control_points is not None and raster.crs is not None:
        if header.control_points is not None:
            return _align_by_points(path, raster, header.control_points)
        if header.transform == Affine.identity():
            raise GeotuneError(
                f"{path}: has no georeference, but its image {raster.path} is warped by its ground "
                "control points; copy them to this file (gdal_translate -gcp)",
                code="crs-missing",
                file=path,
            )
    if (
        raster.file_grid is not None
        and raster.crs is not None
        and header.transform == Affine.identity()
        and header.shape == raster.file_grid[2]
    ):
        raise GeotuneError(
            f"{path}: has no georeference and the pixels of its image {raster.path}, which is "
            "resampled to data.resolution; copy the georeference of the image to this file "
            "(gdal_edit.py, or a world file), or remove data.resolution",
            code="crs-missing",
            key="data.resolution",
            file=path,
        )
    located = [each.transform != Affine.identity() for each in (raster, header)]
    aligned = not all(located) or _same_grid(raster, header)
    notes: list[str] = []
    if aligned or (by_pixel and not _same_ground(raster, header)):
        if header.shape != raster.shape:
            raise GeotuneError(
                f"{path}: has {'x'.join(map(str, header.shape))} pixels, but its image "
                f"{raster.path} has {'x'.join(map(str, raster.shape))}; the two must have the same "
                "size",
                code="grid-mismatch",
                file=path,
            )
        if not aligned or (any(located) and not all(located) and not by_pixel):
            reason = "has another georeference than" if all(located) else NOT_LOCATED[located[0]]
            notes.append(f"{path}: {reason} its image; matched by row and column")
        return None, True, notes
    overlaps = _overlap(path, raster, header)
    if header.crs is None and raster.crs is not None:
        if not overlaps:
            raise GeotuneError(
                f"{path}: has no CRS, and its transform is not in that of {raster.path} "
                f"({raster.crs}); assign it the CRS of its coordinates (gdal_edit.py -a_srs)",
                code="crs-missing",
                file=path,
            )
        notes.append(f"{path}: has no CRS; taken to be in that of its image")
    notes.append(f"{path}: has another grid than its image; reprojected to it")
    return (raster.crs, raster.transform, raster.shape), overlaps, notes


def _align_by_points(
    path: Path, raster: RasterSource, control: ControlPoints
) -> tuple[Grid | None, bool, list[str]]:
    """Resample a file with ground control points to the grid of its image."""
    assert raster.crs is not None
    points = on_grid_points(control, raster.crs, raster.transform, raster.shape)
    cols, rows = apply_affine(
        ~raster.transform, np.array([p.x for p in points]), np.array([p.y for p in points])
    )
    height, width = raster.shape
    overlaps = cols.max() > 0 and cols.min() < width and rows.max() > 0 and rows.min() < height
    note = f"{path}: warped to its image by its ground control points"
    return (raster.crs, raster.transform, raster.shape), bool(overlaps), [note]


def _same_grid(raster: RasterSource, header: RasterHeader) -> bool:
    corners = _corners(raster.shape)
    return _same_crs(raster, header) and _offset(raster, header, corners, corners) < GRID_TOLERANCE


def _same_ground(raster: RasterSource, header: RasterHeader) -> bool:
    """Whether the corners of the file are those of the image, in whatever order."""
    corners, own = _corners(raster.shape), _corners(header.shape)
    return _same_crs(raster, header) and any(
        _offset(raster, header, corners, own[:, list(order)]) < GRID_TOLERANCE
        for order in permutations(range(4))
    )


def _same_crs(raster: RasterSource, header: RasterHeader) -> bool:
    """Whether both are in the same CRS, as far as known."""
    return raster.crs is None or header.crs is None or raster.crs == header.crs


def _corners(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Columns and rows of the corners of (H, W), `(2, 4)`."""
    height, width = shape
    return np.array([[0.0, width, 0, width], [0.0, 0, height, height]])


def _offset(
    raster: RasterSource,
    header: RasterHeader,
    points: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> float:
    """The largest distance of points of the image from those expected, in pixels of the file."""
    xs, ys = apply_affine(raster.transform, *points)
    xs = xs + _turn(header, float(xs.mean()), raster)
    found = apply_affine(~header.transform, xs, ys)
    return float(np.hypot(*(np.array(found) - expected)).max())


def _turn(header: RasterHeader, xs: Any, raster: RasterSource) -> Any:
    """The whole turns of the world to add to `xs` so that they are nearest to the file."""
    axis = longitude_axis(header.crs or raster.crs)
    if axis is None:
        return 0.0
    west, _, east, _ = bounds(header.transform, header.shape)
    return axis.nearest_turn(xs, (west + east) / 2)


def _overlap(path: Path, raster: RasterSource, header: RasterHeader) -> bool:
    """Whether any of a coarse grid of points of the image lies in the file.

    Raises `GeotuneError` if the file's CRS cannot express the image's location.
    """
    height, width = raster.shape
    cols, rows = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
    xs, ys = apply_affine(raster.transform, cols.ravel(), rows.ravel())
    if not _same_crs(raster, header):
        assert raster.crs is not None and header.crs is not None
        # points that the other CRS cannot express become infinite
        xs, ys = transformer(raster.crs, header.crs).transform(xs, ys)
    if not (np.isfinite(xs) & np.isfinite(ys)).any():
        raise GeotuneError(
            f"{raster.path}: lies outside the CRS of {path} ({header.crs}); check that "
            f"its coordinates are in its CRS ({raster.crs})",
            code="crs-incompatible",
            file=raster.path,
        )
    with np.errstate(invalid="ignore"):
        xs = xs + _turn(header, xs, raster)
        cols, rows = apply_affine(~header.transform, xs, ys)
    height, width = header.shape
    inside = (cols > 0) & (cols < width) & (rows > 0) & (rows < height)
    return bool(inside.any())
