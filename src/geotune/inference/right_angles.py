"""Square up the outlines of buildings: every corner becomes a right angle.

Each edge is turned to the nearer of two perpendicular directions, the main ones of the outline.
Neighbouring edges of one direction become one line through their mean.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

MIN_IOU = 0.75
"""A shape that right angles change more than this keeps its own angles."""

Points = NDArray[np.float64]


def square_up(polygon: Polygon) -> Polygon:
    """The polygon with right angles; unchanged if these would change its shape much.

    Simplify it first: the steps of a pixel outline are right angles already.
    """
    angle = _main_direction(shapely.get_coordinates(polygon.exterior))
    rings = [
        _square_ring(shapely.get_coordinates(r), angle)
        for r in (polygon.exterior, *polygon.interiors)
    ]
    shell, *holes = rings
    if shell is None:
        return polygon
    squared = Polygon(shell, [hole for hole in holes if hole is not None])
    if not squared.is_valid or squared.is_empty:
        return polygon
    union = shapely.union(polygon, squared).area
    alike = shapely.intersection(polygon, squared).area >= MIN_IOU * union
    return squared if alike else polygon


def _main_direction(ring: Points) -> float:
    """The angle, modulo a right angle, that most of the outline's length has."""
    edges = np.diff(ring, axis=0)
    lengths = np.hypot(*edges.T)
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    return float(np.angle((lengths * np.exp(4j * angles)).sum()) / 4)


def _square_ring(ring: Points, angle: float) -> Points | None:
    """Corners of a closed ring with edges along `angle` and across it; None without four."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ring @ turn
    edges, middles = np.diff(points, axis=0), (points[1:] + points[:-1]) / 2
    lengths = np.hypot(*edges.T)
    along = np.abs(edges[:, 0]) >= np.abs(edges[:, 1])
    starts = np.flatnonzero(along != np.roll(along, 1))
    if len(starts) < 4:
        return None
    order = np.roll(np.arange(len(along)), -starts[0])
    lines = []  # (whether it runs along, its position across)
    for runs_along, members in groupby(order.tolist(), key=lambda i: bool(along[i])):
        run = list(members)
        across = middles[run, 1 if runs_along else 0]
        lines.append((runs_along, float(np.average(across, weights=lengths[run]))))
    corners = [
        (two, one) if runs_along else (one, two)
        for (runs_along, one), (_, two) in zip(lines, [*lines[1:], lines[0]], strict=True)
    ]
    squared: Points = np.array(corners) @ turn.T
    return squared
