"""Visible fraction of boxes in a window, and clipping to the window.

Objects cut by a window are kept, clipped or dropped by the fraction of their area inside; for DOTA
it is common to keep those with at least 0.7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.boxes.array_namespace import Array, array_namespace
from geotune.boxes.intersection import intersection
from geotune.boxes.oriented import HORIZONTAL, POINT, as_oriented, centres
from geotune.boxes.polygons import minimum_rectangles, to_polygons


def visible_fraction(boxes: Array, shape: tuple[int, int]) -> Array:
    """Fractions `(N)` of the area of boxes `(N, 5)` or `(N, 4)` inside a window of `shape` (H, W).

    Coordinates are relative to the window (`transforms.translate`). Points `(N, 2)` and the centres
    of boxes without area count as 1 or 0. The right and lower edges are outside the window.
    """
    xp = array_namespace(boxes)
    height, width = shape
    x, y = centres(boxes)[..., 0], centres(boxes)[..., 1]
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)) * (1 + 0 * x)
    if boxes.shape[-1] == POINT:
        return inside
    boxes = as_oriented(boxes)
    window = xp.stack([0 * x + v for v in (width / 2, height / 2, width, height, 0.0)], -1)
    area = boxes[..., 2] * boxes[..., 3]
    share = intersection(boxes, window) / xp.where(area > 0, area, 1.0)
    return xp.where(area > 0, xp.clip(share, 0.0, 1.0), inside)


def clip(boxes: NDArray[np.floating[Any]], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes `(N, 5)` or `(N, 4)` around their parts inside a window of `shape` (H, W).

    An oriented box becomes the minimum-area rectangle around its part inside, whose angle may
    differ and which may extend past the window. NaN if nothing is inside.
    """
    height, width = shape
    if boxes.shape[-1] == HORIZONTAL:
        cut = np.clip(boxes, 0.0, np.array([width, height] * 2, dtype=float))
        outside = (cut[:, 2] < boxes[:, 0]) | (cut[:, 0] > boxes[:, 2])
        outside |= (cut[:, 3] < boxes[:, 1]) | (cut[:, 1] > boxes[:, 3])
        return np.where(outside[:, None], np.nan, cut)
    result = np.array(boxes, dtype=np.float64)
    # Boxes entirely inside are returned bit-identically.
    window = shapely.box(0, 0, width, height)
    shapes = to_polygons(result)
    cut_off = ~shapely.contains_properly(window, shapes)
    result[cut_off] = minimum_rectangles(shapely.intersection(shapes[cut_off], window))
    return result
