"""Oriented boxes `(cx, cy, w, h, angle)`: convention, and conversion to and from corners.

    +----------> x                 cx, cy  the centre, in pixels (or metres)
    |      0 .                     w       the long side, h the short one: w >= h
    |       / ` . w                angle   of the long side, in radians from the x axis
    |    h /      ` . 1                    towards the y axis, -pi/2 <= angle < pi/2
    |   3 .    c    /
    |       ` .    / )angle        In an image y points down, so positive angles turn
    v           ` 2 ------ x       clockwise (counterclockwise in map coordinates, where y points
    y                              up). Integer coordinates are pixel corners: the centre of the
                                   first pixel is (0.5, 0.5).

Every rectangle has one canonical form. Rotating by pi changes nothing, so angles wrap at pi/2; a
square is also unchanged by pi/2, so its angle lies in -pi/4 <= angle < pi/4. Corners have the order
0 1 2 3 of the figure: upper left, upper right, lower right, lower left at angle 0.

Horizontal boxes are `(x1, y1, x2, y2)`, points `(x, y)`. Functions that take several kinds
distinguish them by the number of columns: 5, 4 or 2. All accept leading dimensions, and NumPy
arrays or torch tensors.
"""

from __future__ import annotations

import math

from geotune.boxes.array_namespace import Array, array_namespace

ORIENTED, HORIZONTAL, POINT = 5, 4, 2
"""Number of columns of each kind of object."""


def canonical(boxes: Array) -> Array:
    """Boxes `(..., 5)` with sides in any order and any angle, in canonical form."""
    xp = array_namespace(boxes)
    w, h, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    angle = xp.where(w < h, angle + math.pi / 2, angle)
    angle = _wrap(angle, math.pi)
    angle = xp.where(w == h, _wrap(angle, math.pi / 2), angle)
    x, y = boxes[..., 0], boxes[..., 1]
    return xp.stack([x, y, xp.maximum(w, h), xp.minimum(w, h), angle], -1)


def _wrap(angle: Array, period: float) -> Array:
    """Angles in `[-period / 2, period / 2)`."""
    xp = array_namespace(angle)
    angle = angle - period * xp.floor(angle / period + 0.5)
    return xp.where(abs(angle) >= period / 2, -period / 2, angle)  # rounding can reach the end


def corners(boxes: Array) -> Array:
    """Corners `(..., 4, 2)` of oriented boxes `(..., 5)`, in the order of the figure."""
    xp = array_namespace(boxes)
    cos, sin = xp.cos(boxes[..., 4]), xp.sin(boxes[..., 4])
    along = xp.stack([cos, sin], -1) * boxes[..., 2:3] / 2
    across = xp.stack([-sin, cos], -1) * boxes[..., 3:4] / 2
    centre = boxes[..., :2]
    return xp.stack(
        [
            centre - along - across,
            centre + along - across,
            centre + along + across,
            centre - along + across,
        ],
        -2,
    )


def from_corners(points: Array) -> Array:
    """Canonical boxes `(..., 5)` of rectangles given by corners `(..., 4, 2)`.

    Corners may start anywhere and go in either direction. For quadrilaterals that are not
    rectangles, use `polygons.minimum_rectangles`.
    """
    xp = array_namespace(points)
    p0, p1, p2, p3 = (points[..., k, :] for k in range(4))
    along, across = (p1 - p0 + p2 - p3) / 2, (p2 - p1 + p3 - p0) / 2
    w, h = xp.hypot(along[..., 0], along[..., 1]), xp.hypot(across[..., 0], across[..., 1])
    # The longer side gives the more precise angle; a side of zero length gives none.
    long = xp.where((w >= h)[..., None], along, across)
    angle = xp.arctan2(long[..., 1], long[..., 0])
    # Relative to the first corner, to keep precision far from the origin.
    centre = p0 + (p2 - p0 + (p1 - p0) + (p3 - p0)) / 4
    x, y = centre[..., 0], centre[..., 1]
    return canonical(xp.stack([x, y, xp.maximum(w, h), xp.minimum(w, h), angle], -1))


def hull(boxes: Array) -> Array:
    """Axis-aligned bounding boxes `(..., 4)` of oriented boxes `(..., 5)`.

    Horizontal boxes are returned unchanged; points `(..., 2)` become boxes of zero size.
    """
    xp = array_namespace(boxes)
    if boxes.shape[-1] == HORIZONTAL:
        return boxes
    if boxes.shape[-1] == POINT:
        return xp.concatenate([boxes, boxes], -1)
    cos, sin = abs(xp.cos(boxes[..., 4])), abs(xp.sin(boxes[..., 4]))
    w, h = boxes[..., 2] / 2, boxes[..., 3] / 2
    reach = xp.stack([w * cos + h * sin, w * sin + h * cos], -1)
    return xp.concatenate([boxes[..., :2] - reach, boxes[..., :2] + reach], -1)


def as_oriented(boxes: Array) -> Array:
    """Horizontal boxes `(..., 4)` as canonical oriented ones; oriented ones are unchanged."""
    if boxes.shape[-1] == ORIENTED:
        return boxes
    xp = array_namespace(boxes)
    size = boxes[..., 2:] - boxes[..., :2]
    return canonical(xp.concatenate([centres(boxes), size, 0 * size[..., :1]], -1))


def centres(boxes: Array) -> Array:
    """Centres `(..., 2)` of oriented and horizontal boxes; points are unchanged."""
    if boxes.shape[-1] == HORIZONTAL:
        return boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]) / 2
    return boxes[..., :2]
