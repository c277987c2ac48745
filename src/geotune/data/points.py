"""Where objects are in a scene: points from a CSV or a vector file, in pixels."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geotune.data.raster import RasterSource, apply
from geotune.data.vector_file import read_frame, same_world
from geotune.types import GeotuneError

Points = NDArray[np.float64]
"""`(N, 2)`: column and row in pixels of the scene; (0, 0) is its first pixel's outer corner."""


def read_points(
    path: Path, raster: RasterSource, xy: Literal["pixels", "coordinates"] = "pixels"
) -> Points:
    """The points of a file: a CSV with columns `x` and `y`, or points of a vector file in any CRS.

    `xy` says what a CSV's numbers are: pixels of the scene, or coordinates in its CRS. An empty
    file holds no points. Raises `GeotuneError` that names the row of what is no number, and for a
    file that is unreadable or holds anything but points.
    """
    if path.suffix.lower() in (".csv", ".txt"):
        points = _read_csv(path)
        return points if xy == "pixels" else _to_pixels(points, raster)
    return _read_vector(path, raster)


def _read_csv(path: Path) -> Points:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeotuneError(f"{path}: cannot be read as a CSV ({error}); write it anew") from error
    rows = [row for row in rows if row]
    if not rows:
        return np.zeros((0, 2))
    header = [name.strip().lower() for name in rows[0]]
    if not {"x", "y"} <= set(header):
        raise GeotuneError(
            f"{path}: has the columns {', '.join(rows[0])}; expected x and y of each object"
        )
    at = header.index("x"), header.index("y")
    points = np.zeros((len(rows) - 1, 2))
    for number, row in enumerate(rows[1:]):
        try:
            points[number] = [float(row[i]) for i in at]
        except (ValueError, IndexError):
            points[number] = math.nan
        if not np.isfinite(points[number]).all():
            raise GeotuneError(
                f"{path}: row {number + 2} is {','.join(row)!r}; expected numbers for x and y"
            )
    return points


def _read_vector(path: Path, raster: RasterSource) -> Points:
    frame = read_frame(path)
    shapes: Any = np.asarray(frame.geometry.array, dtype=object)
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        return np.zeros((0, 2))
    others = shapes[~np.isin(shapely.get_type_id(shapes), (0, 4))]  # Point, MultiPoint
    if len(others):
        raise GeotuneError(
            f"{path}: holds {len(others)} features such as {others[0].geom_type}; expected points"
        )
    same_world(path, frame.crs, raster)
    if frame.crs is not None and raster.crs is not None:
        try:
            series = geopandas.GeoSeries(shapes, crs=frame.crs).to_crs(raster.crs.to_wkt())
        except ProjError as error:
            raise GeotuneError(
                f"{path}: cannot be brought from its CRS to that of {raster.path} ({error})"
            ) from error
        shapes = np.asarray(series.array, dtype=object)
    points = shapely.get_coordinates(shapes)
    # what the scene's CRS cannot express is far from the scene
    return _to_pixels(points[np.isfinite(points).all(axis=1)], raster)


def _to_pixels(points: Points, raster: RasterSource) -> Points:
    return np.stack(apply(~raster.transform, points[:, 0], points[:, 1]), axis=1)
