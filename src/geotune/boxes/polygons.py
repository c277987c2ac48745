"""Convert oriented boxes to and from shapely geometries; NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.oriented import corners, from_corners

_CORNERS = {5: (0, 1, 2, 3), 2: (0, 1, 1, 0), 1: (0, 0, 0, 0)}
"""By the number of coordinates of an envelope (polygon, line or point): indices of its corners."""


def minimum_rectangles(geometries: NDArray[Any]) -> NDArray[np.float64]:
    """Minimum-area canonical boxes `(N, 5)` around geometries `(N)` of any type.

    Lines and points give boxes without area, empty geometries a row of NaN.
    """
    geometries = np.array(geometries, dtype=object)
    # Relative to a corner: shapely loses millimetres a million metres from the origin.
    origins = shapely.bounds(geometries)[:, :2]
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    local = shapely.set_coordinates(geometries, points - origins[owner])
    points, owner = shapely.get_coordinates(shapely.oriented_envelope(local), return_index=True)
    boxes = np.full((len(geometries), 5), np.nan)
    counts = np.bincount(owner, minlength=len(geometries))
    firsts = np.cumsum(counts) - counts
    for count, order in _CORNERS.items():
        rows = np.flatnonzero(counts == count)
        boxes[rows] = from_corners(points[firsts[rows, None] + order])
    boxes[:, :2] += origins
    return boxes


def to_polygons(boxes: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Polygons `(N)` of oriented boxes `(N, 5)`."""
    return np.asarray(shapely.polygons(corners(boxes)))
