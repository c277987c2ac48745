"""What a window is learnt as where objects are to be found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.boxes.oriented import as_oriented, centres, hull
from geotune.boxes.polygons import to_polygons
from geotune.boxes.transforms import affine_transform, rotate90_flip
from geotune.boxes.visibility import visible_fraction
from geotune.data.labels.targets import NO_VALUES
from geotune.data.raster.orientation import orient
from geotune.data.raster.warp import Shape, warp_nearest

if TYPE_CHECKING:  # reading and checking data needs no torch
    from torch import Tensor

Boxes = NDArray[np.float64]
"""`(N, 4)` horizontal or `(N, 5)` oriented, as `geotune.boxes.oriented` has them."""

VISIBILITY_TOLERANCE = 1e-6
"""Of a share: an object that is cut in half shows half of itself, whatever its coordinates."""


@dataclass(frozen=True)
class ObjectTarget:
    """The objects of which a window shows something, each with its whole box.

    An object counts in the window that holds its centre, if that shows at least `visible` of its
    area. Elsewhere it is difficult: neither to be found nor wrong to find. So no object counts in
    two windows of a grid.

    Attributes:
        boxes: in pixels of the window, not cut off at its edges.
        classes: `(N)` class indices.
        difficult: `(N)` whether the label says that it is.
        visible_fraction: `(N)` the share of its area that lies in the window where there is data; 0
            where its centre lies in another window.
        visible: the least share that counts.
        valid: `(H, W)` where the window has data.
    """

    boxes: Boxes
    classes: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    visible_fraction: NDArray[np.float64]
    min_visibility: float
    valid: NDArray[np.bool_]

    @property
    def has_labels(self) -> bool:
        """Whether it has data: a window without any object teaches what is none."""
        return bool(self.valid.any())

    @property
    def counted(self) -> NDArray[np.bool_]:
        """`(N)` which objects are to be found."""
        found: NDArray[np.bool_] = ~self.difficult & (
            self.visible_fraction >= self.min_visibility - VISIBILITY_TOLERANCE
        )
        return found

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Without objects of which no part lies where there is data."""
        shares = _shares(self.boxes, valid)
        kept = shares > 0
        return replace(
            self,
            boxes=self.boxes[kept],
            classes=self.classes[kept],
            difficult=self.difficult[kept],
            visible_fraction=(self.visible_fraction * shares)[kept],
            valid=self.valid & valid,
        )

    def rotate90_flip(self, orientation: int) -> Self:
        """Bring boxes and valid pixels into one of the eight orientations."""
        height, width = self.valid.shape
        return replace(
            self,
            boxes=np.asarray(
                rotate90_flip(self.boxes, orientation, (height, width)), dtype=np.float64
            ),
            valid=orient(self.valid, orientation),
        )

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """With the boxes by their corners, and what the other window shows of each."""
        boxes = np.asarray(affine_transform(self.boxes, tuple(transform)[:6]), dtype=np.float64)
        shares, there = clip_to_window(boxes, shape)
        moved = replace(
            self,
            boxes=boxes[there],
            classes=self.classes[there],
            difficult=self.difficult[there],
            visible_fraction=shares[there],
            valid=np.ones(shape, dtype=np.bool_),
        )
        valid = warp_nearest(self.valid.astype(np.uint8), transform, shape, fill=0) == 1
        return moved.masked(valid)

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Wherever there is data: where no object is labelled there is none."""
        return self.valid & valid

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels with the centres of each class's objects; not of difficult ones.

        However little of it is shown: over the windows of a grid every object is marked once.
        """
        pixels = _centre_pixels(self.boxes, self.valid.shape)
        there = ~self.difficult & (self.visible_fraction > 0) & self.valid.flat[pixels]
        for index in np.unique(self.classes[there]):
            yield int(index), pixels[there & (self.classes == index)]

    def regression_values(self) -> NDArray[np.float32]:
        """None: boxes are no numbers to standardise by."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> list[dict[str, Tensor]]:
        """Of each window `boxes` `(N, 4)` or `(N, 5)` float32, `labels` `(N)` int64 and `difficult`
        `(N)` bool.
        """
        import torch

        def one(target: Self) -> dict[str, Any]:
            return {
                "boxes": torch.from_numpy(target.boxes.astype(np.float32)),
                "labels": torch.from_numpy(target.classes),
                "difficult": torch.from_numpy(~target.counted),
            }

        return [one(target) for target in targets]


def clip_to_window(boxes: Boxes, shape: Shape) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of boxes `(N, ...)` in pixels of a window their `visible_fraction`, and which show anything."""
    shares = visible_fraction(boxes, shape)
    middles = centres(boxes)
    own = ((middles >= 0) & (middles < shape[::-1])).all(axis=1)
    return np.where(own, shares, 0.0), shares > 0


def _shares(boxes: Boxes, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of what lies of each box in a window, the share `(N)` of pixels that are `valid`."""
    shares = np.ones(len(boxes))
    if valid.all():
        return shares
    height, width = valid.shape
    missing = np.zeros((height + 1, width + 1), dtype=np.int64)
    missing[1:, 1:] = np.cumsum(np.cumsum(~valid, axis=0), axis=1)
    hulls = np.clip(hull(boxes), 0, [width, height, width, height])
    left, top = np.floor(hulls[:, :2]).astype(np.int64).T
    right, bottom = np.ceil(hulls[:, 2:]).astype(np.int64).T
    holes = missing[bottom, right] - missing[top, right] - missing[bottom, left]
    touched = np.flatnonzero(holes + missing[top, left])
    shapes = to_polygons(as_oriented(boxes[touched]))
    pixels = _centre_pixels(boxes[touched], valid.shape)
    for i, shape, pixel in zip(touched, shapes, pixels, strict=True):
        part = slice(top[i], bottom[i]), slice(left[i], right[i])
        rows, cols = np.mgrid[part]
        inside = shapely.contains_xy(shape, cols + 0.5, rows + 0.5)
        shares[i] = valid[part][inside].mean() if inside.any() else valid.flat[pixel]
    return shares


def _centre_pixels(boxes: Boxes, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The pixels `(N)` of the flat window that hold the boxes' centres, or are nearest to them."""
    height, width = shape
    x, y = np.floor(centres(boxes)).astype(np.int64).T
    flat: NDArray[np.int64] = np.clip(y, 0, height - 1) * width + np.clip(x, 0, width - 1)
    return flat
