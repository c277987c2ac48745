"""Where objects are in a scene: points from a CSV or a vector file, in pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geotune.data.labels.vector_io import CLASS_FIELDS, check_crs, read_frame
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.data.text_io import parse_numbers, read_csv
from geotune.errors import GeotuneError

Points = NDArray[np.float64]
"""`(N, 2)`: column and row in pixels of the scene; (0, 0) is its first pixel's outer corner."""


def read_points(
    path: Path, raster: RasterSource, xy: Literal["pixels", "coordinates"] = "pixels"
) -> Points:
    """The points of a file: a CSV with columns `x` and `y`, or points of a vector file in any CRS.

    `xy` says what a CSV's numbers are: pixels of the scene, or coordinates in its CRS. An empty
    file holds no points. Raises `GeotuneError` as `read_table` does, and for a vector file that is
    unreadable or holds anything but points.
    """
    if path.suffix.lower() in (".csv", ".txt"):
        points = np.array([(p.x, p.y) for p in read_table(path)]).reshape(-1, 2)
        return points if xy == "pixels" else _to_pixels(points, raster)
    return _read_vector(path, raster)


class Point(NamedTuple):
    """A row of a CSV.

    Attributes:
        x: column, or first coordinate.
        y: row, or second coordinate.
        place: where it stands in its file, for messages: `line 3`.
        class_name: what it is; None where the file does not say.
    """

    x: float
    y: float
    place: str
    class_name: str | None


def read_table(path: Path) -> list[Point]:
    """The points of a CSV with columns `x` and `y`; an empty file holds none.

    A column called class, label or classname has the class. Raises `GeotuneError` that names the
    line of what is no finite number, and for a file that is unreadable or lacks the columns.
    """
    found = read_csv(path)
    _, header = next(found, ("", []))
    if not header:
        return []
    header = [name.strip().lower() for name in header]
    if not {"x", "y"} <= set(header):
        raise GeotuneError(
            f"{path}: its first line is {', '.join(header)[:80]!r}, expected the columns x and y"
        )
    named = next((header.index(name) for name in CLASS_FIELDS if name in header), None)
    points = []
    for place, row in found:
        if len(row) != len(header):
            raise GeotuneError(
                f"{path}: {place}: has {len(row)} values for {len(header)} columns; mend the line"
            )
        x, y = parse_numbers([row[header.index(axis)] for axis in "xy"], path, place)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise GeotuneError(
                f"{path}: {place}: has a coordinate that is no finite number; mend it or take the "
                "line out"
            )
        points.append(Point(x, y, place, None if named is None else row[named]))
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
    check_crs(path, frame.crs, raster)
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
    return np.stack(apply_affine(~raster.transform, points[:, 0], points[:, 1]), axis=1)
