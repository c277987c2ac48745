"""Outlines of objects, as annotation files have them."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

SELF_INTERSECTING = "outlines that cross themselves, taken as the box around all their corners"
"""The remark on such an annotation."""


def box_corners(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """Two corners of a horizontal box say where it is, but four what an oriented one is."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def self_intersects(points: NDArray[np.float64]) -> bool:
    """Whether an outline `(n, 2)` crosses itself; what has no area does not."""
    if len(points) < 4 or not np.isfinite(points).all():
        return False
    outline = shapely.LinearRing(points)
    return not outline.is_simple and bool(shapely.convex_hull(outline).area > 0)
