"""Box coders: encode boxes as regression targets relative to reference boxes, and decode them."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from geotune.boxes.oriented import canonical, hull

MAX_LOG_RATIO = math.log(1000 / 16)
"""Upper bound of the logarithm of a side ratio, against overflow (as in torchvision)."""
MIN_REFERENCE_SIDE = 1e-3


class BoxCoder(Protocol):
    """Converts boxes `(..., D)` to deltas `(..., size)` relative to reference boxes, and back."""

    size: int

    @staticmethod
    def encode(reference: Tensor, boxes: Tensor) -> Tensor:
        """Deltas of `boxes` relative to `reference`."""

    @staticmethod
    def decode(reference: Tensor, deltas: Tensor) -> Tensor:
        """Boxes from deltas relative to `reference`."""


class HorizontalDeltaCoder:
    """Centre offset in reference sides, and log side ratios (arXiv 1311.2524, appendix C)."""

    size = 4

    @staticmethod
    def encode(reference: Tensor, boxes: Tensor) -> Tensor:
        """Deltas `(..., 4)` of horizontal boxes."""
        centre, sides = _centre_and_sides(reference)
        box_centre, box_sides = _centre_and_sides(boxes)
        return torch.cat([(box_centre - centre) / sides, (box_sides / sides).log()], dim=-1)

    @staticmethod
    def decode(reference: Tensor, deltas: Tensor) -> Tensor:
        """Horizontal boxes `(..., 4)`."""
        centre, sides = _centre_and_sides(reference)
        centre = centre + deltas[..., :2] * sides
        half = deltas[..., 2:].clamp(max=MAX_LOG_RATIO).exp() * sides / 2
        return torch.cat([centre - half, centre + half], dim=-1)


class MidpointOffsetCoder:
    """Oriented boxes relative to horizontal ones: the hull, and the vertices on its sides.

    Oriented R-CNN (ICCV 2021, arXiv 2108.05699), equations 1 and 2: the offsets of the top and the
    right vertex from the midpoints of the hull's top and right side, as fractions of its width and
    height. The result is a parallelogram in general; its shorter diagonal is extended to make it a
    rectangle.
    """

    size = 6

    @staticmethod
    def encode(reference: Tensor, boxes: Tensor) -> Tensor:
        """Deltas `(..., 6)` of oriented boxes."""
        hulls = hull(boxes)
        _, sides = _centre_and_sides(hulls)
        cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        w, h = boxes[..., 2] / 2, boxes[..., 3] / 2
        # Relative to the centre: x of the top vertex, and y of the right vertex.
        highest = sin * h - (cos * w).where(sin >= 0, -cos * w)
        rightmost = sin * w - (cos * h).where(sin >= 0, -cos * h)
        shift = torch.stack([highest, rightmost], dim=-1) / sides
        return torch.cat([HorizontalDeltaCoder.encode(reference, hulls), shift], dim=-1)

    @staticmethod
    def decode(reference: Tensor, deltas: Tensor) -> Tensor:
        """Canonical oriented boxes `(..., 5)`."""
        hulls = HorizontalDeltaCoder.decode(reference, deltas[..., :4])
        centre, sides = _centre_and_sides(hulls)
        shift = deltas[..., 4:].clamp(min=-0.5, max=0.5) * sides
        top = torch.stack([shift[..., 0], -sides[..., 1] / 2], dim=-1)
        right = torch.stack([sides[..., 0] / 2, shift[..., 1]], dim=-1)
        lengths = torch.stack([top.norm(dim=-1), right.norm(dim=-1)], dim=-1)
        longest = lengths.amax(dim=-1, keepdim=True)
        top = top * (longest / lengths[..., :1])
        right = right * (longest / lengths[..., 1:])
        along, across = (right - top) / 2, (right + top) / 2  # half sides
        w, h = 2 * along.norm(dim=-1), 2 * across.norm(dim=-1)
        long = along.where((w >= h)[..., None], across)
        angle = torch.atan2(long[..., 1], long[..., 0])
        values = [torch.maximum(w, h), torch.minimum(w, h), angle]
        return canonical(torch.cat([centre, torch.stack(values, dim=-1)], dim=-1))


class OrientedDeltaCoder:
    """Oriented boxes relative to oriented ones: centre and sides in their frame, and rotation.

    Of the two equivalent descriptions of a box (sides swapped), the one with the smaller rotation,
    at most pi/4, is encoded.
    """

    size = 5

    @staticmethod
    def encode(reference: Tensor, boxes: Tensor) -> Tensor:
        """Deltas `(..., 5)` of oriented boxes."""
        sides = reference[..., 2:4].clamp(min=MIN_REFERENCE_SIDE)
        rotation = boxes[..., 4] - reference[..., 4]
        rotation = rotation - math.pi * (rotation / math.pi + 0.5).floor()  # boxes are pi-periodic
        swap = rotation.abs() > math.pi / 4
        rotation = rotation.where(~swap, rotation - math.pi / 2 * rotation.sign())
        box_sides = boxes[..., 2:4].clamp(min=MIN_REFERENCE_SIDE)
        box_sides = box_sides.where(~swap[..., None], box_sides.flip(-1))
        offset = _rotate(boxes[..., :2] - reference[..., :2], -reference[..., 4])
        return torch.cat([offset / sides, (box_sides / sides).log(), rotation[..., None]], dim=-1)

    @staticmethod
    def decode(reference: Tensor, deltas: Tensor) -> Tensor:
        """Canonical oriented boxes `(..., 5)`."""
        sides = reference[..., 2:4].clamp(min=MIN_REFERENCE_SIDE)
        centre = reference[..., :2] + _rotate(deltas[..., :2] * sides, reference[..., 4])
        sides = deltas[..., 2:4].clamp(max=MAX_LOG_RATIO).exp() * sides
        angle = reference[..., 4:] + deltas[..., 4:]
        return canonical(torch.cat([centre, sides, angle], dim=-1))


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides of horizontal boxes, each `(..., 2)`."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=MIN_REFERENCE_SIDE)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, sides


def _rotate(offset: Tensor, angle: Tensor) -> Tensor:
    x, y = offset.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)
