"""Boxes and points where the window they are in is flipped, turned, scaled or moved.

Oriented boxes `(..., 5)`, horizontal ones `(..., 4)` and points `(..., 2)` alike.
"""

from __future__ import annotations

import math

from geotune.boxes.array_namespace import Array, array_namespace
from geotune.boxes.oriented import (
    HORIZONTAL,
    ORIENTED,
    POINT,
    as_oriented,
    canonical,
    corners,
    from_corners,
    hull,
)


def translate(boxes: Array, x: float, y: float) -> Array:
    """Boxes as seen from an origin that lies at `-x, -y`: so many pixels right and down.

    From a scene into the window at `col, row` it is `translate(boxes, -col, -row)`.
    """
    xp = array_namespace(boxes)
    columns = boxes.shape[-1]
    shifts = [x, y, x, y] if columns == HORIZONTAL else [x, y] + [0.0] * (columns - 2)
    return xp.stack([boxes[..., k] + shift for k, shift in enumerate(shifts)], -1)


def rotate90_flip(boxes: Array, which: int, shape: tuple[int, int]) -> Array:
    """Boxes in a window of `shape` (H, W) that is laid one of the eight ways `(0 to 7)`.

    `which % 4` quarter turns against the clock, after a left-right flip from 4 on: what
    `numpy.rot90` makes of the pixels. Oriented boxes come back canonical.
    """
    xp = array_namespace(boxes)
    if boxes.shape[-1] == HORIZONTAL:
        first = rotate90_flip(boxes[..., :2], which, shape)
        second = rotate90_flip(boxes[..., 2:], which, shape)
        return xp.concatenate([xp.minimum(first, second), xp.maximum(first, second)], -1)
    height, width = shape
    x, y = boxes[..., 0], boxes[..., 1]
    if which >= 4:
        x = width - x
    for _ in range(which % 4):
        x, y, width, height = y, width - x, height, width
    if boxes.shape[-1] != ORIENTED:
        return xp.stack([x, y], -1)
    angle = -boxes[..., 4] if which >= 4 else boxes[..., 4]
    angle = angle - (which % 4) * math.pi / 2
    return canonical(xp.stack([x, y, boxes[..., 2], boxes[..., 3], angle], -1))


def affine_transform(boxes: Array, to: tuple[float, ...]) -> Array:
    """Boxes whose corners go where `to` takes them: `x' = a x + b y + c`, `y' = d x + e y + f`.

    `to` turns by any angle, scales all directions alike and moves. Of a horizontal box it is the
    smallest horizontal one around its corners, larger than the box where that is turned aslant.
    """
    xp = array_namespace(boxes)
    a, b, c, d, e, f = to

    def there(points: Array) -> Array:
        x, y = points[..., 0], points[..., 1]
        return xp.stack([a * x + b * y + c, d * x + e * y + f], -1)

    if boxes.shape[-1] == POINT:
        return there(boxes)
    found = from_corners(there(corners(as_oriented(boxes))))
    return hull(found) if boxes.shape[-1] == HORIZONTAL else found
