"""Reading points of objects from a CSV or a vector file, in pixels of the scene."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.labels.longitudes import beside_scene
from geotune.data.labels.vector_io import CLASS_FIELDS, check_crs, read_frame, to_scene_crs
from geotune.data.raster.file_pixels import from_file_pixels
from geotune.data.raster.longitude_axis import longitude_axis
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.data.text_io import parse_numbers, read_csv
from geotune.errors import GeotuneError

Points = NDArray[np.float64]
"""`(N, 2)`, column and row in pixels of the scene; (0, 0) is the corner of its first pixel."""

POINT_TYPES = (0, 4)
"""Shapely's type ids of Point and MultiPoint."""


def read_points(
    path: Path, raster: RasterSource, xy: Literal["pixels", "coordinates"] = "pixels"
) -> Points:
    """Read points: a CSV with columns `x` and `y`, or points of a vector file in any CRS.

    `xy`: whether the columns of a CSV are pixels of the scene, or coordinates in its CRS. An empty
    file has no points. Raises `GeotuneError` as `read_point_table` does, and for a vector file that
    is unreadable or has other geometries.
    """
    if path.suffix.lower() in (".csv", ".txt"):
        points = np.array([(p.x, p.y) for p in read_point_table(path)]).reshape(-1, 2)
        if xy == "pixels":
            return from_file_pixels(raster, points)
        axis = longitude_axis(raster.crs)
        if axis is not None:
            shapes = np.asarray(shapely.points(points), dtype=object)
            points = shapely.get_coordinates(beside_scene(shapes, axis, raster))
        return _to_pixels(points, raster)
    return _read_vector(path, raster)


class Point(NamedTuple):
    """A row of a CSV.

    Attributes:
        x: column, or first coordinate.
        y: row, or second coordinate.
        where: its location in the file for messages: `line 3`.
        class_name: None if the file does not state it.
    """

    x: float
    y: float
    where: str
    class_name: str | None


def read_point_table(path: Path) -> list[Point]:
    """Read the points of a CSV with columns `x` and `y`; an empty file has none.

    A column named class, label or classname holds the class. Raises `GeotuneError` for a file that
    is unreadable or lacks columns, and for a line with anything but finite numbers.
    """
    rows = read_csv(path)
    _, header = next(rows, ("", []))
    if not header:
        return []
    header = [name.strip().lower() for name in header]
    if not {"x", "y"} <= set(header):
        raise GeotuneError(
            f"{path}: its first line is {', '.join(header)[:80]!r}, expected the columns x and y",
            code="column-missing",
            file=path,
        )
    class_index = next((header.index(name) for name in CLASS_FIELDS if name in header), None)
    points = []
    for where, row in rows:
        if len(row) != len(header):
            raise GeotuneError(
                f"{path}: {where}: has {len(row)} values for {len(header)} columns; correct it",
                code="row-invalid",
                file=path,
            )
        x, y = parse_numbers([row[header.index(axis)] for axis in "xy"], path, where)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise GeotuneError(
                f"{path}: {where}: has a coordinate that is not finite; correct or remove it",
                code="row-invalid",
                file=path,
            )
        points.append(Point(x, y, where, None if class_index is None else row[class_index]))
    return points


def _read_vector(path: Path, raster: RasterSource) -> Points:
    frame = read_frame(path, raster)
    shapes: Any = np.asarray(frame.geometry.array, dtype=object)
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        return np.zeros((0, 2))
    others = shapes[~np.isin(shapely.get_type_id(shapes), POINT_TYPES)]
    if len(others):
        raise GeotuneError(
            f"{path}: has {len(others)} features such as {others[0].geom_type}; expected points",
            code="geometry-type",
            file=path,
        )
    check_crs(path, frame.crs, raster)
    if frame.crs is not None and raster.crs is not None:
        shapes = to_scene_crs(path, frame.crs, shapes, raster)
    points = shapely.get_coordinates(shapes)
    # points that the scene's CRS cannot express are far from the scene
    return _to_pixels(points[np.isfinite(points).all(axis=1)], raster)


def _to_pixels(points: Points, raster: RasterSource) -> Points:
    return np.stack(apply_affine(~raster.transform, points[:, 0], points[:, 1]), axis=1)
