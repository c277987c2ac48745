"""What a network says of a box: how it differs from one that is given.

A `BoxCoder` is a pair of functions, each the other's inverse where a box can be said exactly.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from geotune.boxes.oriented import canonical, hull

LARGEST = math.log(1000 / 16)
"""Of the logarithm of a side's ratio, so that nothing overflows (torchvision's)."""
SMALLEST_SIDE = 1e-3


class BoxCoder(Protocol):
    """Boxes `(..., D)` as numbers `(..., size)` relative to others."""

    size: int

    @staticmethod
    def encode(given: Tensor, boxes: Tensor) -> Tensor:
        """What has to be said of `boxes` where others are `given`."""

    @staticmethod
    def decode(given: Tensor, deltas: Tensor) -> Tensor:
        """The boxes of which that is said."""


class HorizontalDeltaCoder:
    """Middle in the given box's sides, and logarithms of sides (arXiv 1311.2524, appendix C)."""

    size = 4

    @staticmethod
    def encode(given: Tensor, boxes: Tensor) -> Tensor:
        """`(..., 4)` of horizontal boxes."""
        middle, sides = _parts(given)
        their_middle, their_sides = _parts(boxes)
        return torch.cat([(their_middle - middle) / sides, (their_sides / sides).log()], dim=-1)

    @staticmethod
    def decode(given: Tensor, deltas: Tensor) -> Tensor:
        """Horizontal boxes `(..., 4)`."""
        middle, sides = _parts(given)
        middle = middle + deltas[..., :2] * sides
        half = deltas[..., 2:].clamp(max=LARGEST).exp() * sides / 2
        return torch.cat([middle - half, middle + half], dim=-1)


class MidpointOffsetCoder:
    """Oriented boxes from horizontal ones: the hull, and where the box touches it.

    Oriented R-CNN (ICCV 2021, arXiv 2108.05699), equations 1 and 2: from the middles of the hull's
    upper and right side it is `a` and `b` to the corners, in shares of the hull's width and height.
    Of the parallelogram that four such numbers may say the shorter diagonal is made as long as the
    other.
    """

    size = 6

    @staticmethod
    def encode(given: Tensor, boxes: Tensor) -> Tensor:
        """`(..., 6)` of oriented boxes."""
        around = hull(boxes)
        _, sides = _parts(around)
        cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
        w, h = boxes[..., 2] / 2, boxes[..., 3] / 2
        # From the middle: x of the highest corner, and y of the one that is farthest right.
        highest = sin * h - (cos * w).where(sin >= 0, -cos * w)
        rightmost = sin * w - (cos * h).where(sin >= 0, -cos * h)
        shift = torch.stack([highest, rightmost], dim=-1) / sides
        return torch.cat([HorizontalDeltaCoder.encode(given, around), shift], dim=-1)

    @staticmethod
    def decode(given: Tensor, deltas: Tensor) -> Tensor:
        """Canonical oriented boxes `(..., 5)`."""
        around = HorizontalDeltaCoder.decode(given, deltas[..., :4])
        middle, sides = _parts(around)
        shift = deltas[..., 4:].clamp(min=-0.5, max=0.5) * sides
        top = torch.stack([shift[..., 0], -sides[..., 1] / 2], dim=-1)
        right = torch.stack([sides[..., 0] / 2, shift[..., 1]], dim=-1)
        lengths = torch.stack([top.norm(dim=-1), right.norm(dim=-1)], dim=-1)
        longest = lengths.amax(dim=-1, keepdim=True)
        top = top * (longest / lengths[..., :1])
        right = right * (longest / lengths[..., 1:])
        along, across = (right - top) / 2, (right + top) / 2  # half of neighbouring sides
        w, h = 2 * along.norm(dim=-1), 2 * across.norm(dim=-1)
        long = along.where((w >= h)[..., None], across)
        angle = torch.atan2(long[..., 1], long[..., 0])
        values = [torch.maximum(w, h), torch.minimum(w, h), angle]
        return canonical(torch.cat([middle, torch.stack(values, dim=-1)], dim=-1))


class OrientedDeltaCoder:
    """Oriented boxes from others: middle and sides in the given box's frame, and the turn.

    Of the two descriptions of a box the one is said that is turned less, at most by an eighth.
    """

    size = 5

    @staticmethod
    def encode(given: Tensor, boxes: Tensor) -> Tensor:
        """`(..., 5)` of oriented boxes."""
        sides = given[..., 2:4].clamp(min=SMALLEST_SIDE)
        turn = boxes[..., 4] - given[..., 4]
        turn = turn - math.pi * (turn / math.pi + 0.5).floor()  # a box is itself after half a turn
        swap = turn.abs() > math.pi / 4
        turn = turn.where(~swap, turn - math.pi / 2 * turn.sign())
        theirs = boxes[..., 2:4].clamp(min=SMALLEST_SIDE)
        theirs = theirs.where(~swap[..., None], theirs.flip(-1))
        offset = _turned(boxes[..., :2] - given[..., :2], -given[..., 4])
        return torch.cat([offset / sides, (theirs / sides).log(), turn[..., None]], dim=-1)

    @staticmethod
    def decode(given: Tensor, deltas: Tensor) -> Tensor:
        """Canonical oriented boxes `(..., 5)`."""
        sides = given[..., 2:4].clamp(min=SMALLEST_SIDE)
        middle = given[..., :2] + _turned(deltas[..., :2] * sides, given[..., 4])
        sides = deltas[..., 2:4].clamp(max=LARGEST).exp() * sides
        turn = given[..., 4:] + deltas[..., 4:]
        return canonical(torch.cat([middle, sides, turn], dim=-1))


def _parts(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Middles and sides of horizontal boxes, each `(..., 2)`."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=SMALLEST_SIDE)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, sides


def _turned(offset: Tensor, angle: Tensor) -> Tensor:
    x, y = offset.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)
