"""Geometric transforms of oriented boxes `(..., 5)`, horizontal boxes `(..., 4)` and points."""

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
    """Shift boxes by `x` pixels to the right and `y` down.

    `translate(boxes, -col, -row)` converts scene to window coordinates.
    """
    xp = array_namespace(boxes)
    columns = boxes.shape[-1]
    shifts = [x, y, x, y] if columns == HORIZONTAL else [x, y] + [0.0] * (columns - 2)
    return xp.stack([boxes[..., k] + shift for k, shift in enumerate(shifts)], -1)


def rotate90_flip(boxes: Array, orientation: int, shape: tuple[int, int]) -> Array:
    """Boxes in a window of `shape` (H, W) under one of the eight dihedral orientations (0 to 7).

    A left-right flip if `orientation >= 4`, then `orientation % 4` counterclockwise quarter turns,
    as by `numpy.rot90`. Oriented boxes are returned in canonical form.
    """
    xp = array_namespace(boxes)
    if boxes.shape[-1] == HORIZONTAL:
        first = rotate90_flip(boxes[..., :2], orientation, shape)
        second = rotate90_flip(boxes[..., 2:], orientation, shape)
        return xp.concatenate([xp.minimum(first, second), xp.maximum(first, second)], -1)
    height, width = shape
    x, y = boxes[..., 0], boxes[..., 1]
    if orientation >= 4:
        x = width - x
    for _ in range(orientation % 4):
        x, y, width, height = y, width - x, height, width
    if boxes.shape[-1] != ORIENTED:
        return xp.stack([x, y], -1)
    angle = -boxes[..., 4] if orientation >= 4 else boxes[..., 4]
    angle = angle - (orientation % 4) * math.pi / 2
    return canonical(xp.stack([x, y, boxes[..., 2], boxes[..., 3], angle], -1))


def affine_transform(boxes: Array, transform: tuple[float, ...]) -> Array:
    """Boxes under `x' = a x + b y + c`, `y' = d x + e y + f`, `transform` being `a` to `f`.

    The transform is a similarity: rotation, uniform scaling and translation. A horizontal box
    becomes the bounding box of its transformed corners.
    """
    xp = array_namespace(boxes)
    a, b, c, d, e, f = transform

    def apply(points: Array) -> Array:
        x, y = points[..., 0], points[..., 1]
        return xp.stack([a * x + b * y + c, d * x + e * y + f], -1)

    if boxes.shape[-1] == POINT:
        return apply(boxes)
    result = from_corners(apply(corners(as_oriented(boxes))))
    return hull(result) if boxes.shape[-1] == HORIZONTAL else result
