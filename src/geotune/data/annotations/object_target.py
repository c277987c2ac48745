"""The target of a window for object detection."""

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

if TYPE_CHECKING:  # torch is slow to import, and not needed to read and check data
    from torch import Tensor

Boxes = NDArray[np.float64]
"""`(N, 4)` horizontal or `(N, 5)` oriented, in the convention of `geotune.boxes.oriented`."""

VISIBILITY_TOLERANCE = 1e-6
"""For rounding: an object cut exactly in half is half visible, whatever its coordinates."""


@dataclass(frozen=True)
class ObjectTarget:
    """The objects that are at least partly visible in a window, with their full boxes.

    An object counts in the window that contains its centre, if at least `min_visibility` of its
    area is visible there; in other windows it is difficult, that is, ignored. So no object counts
    in two windows of a grid.

    Attributes:
        boxes: in pixels of the window, not clipped to it.
        classes: `(N)`, class indices.
        difficult: `(N)`, as labelled.
        visible_fraction: `(N)`, fraction of the area on valid pixels of the window; 0 if the centre
            is in another window.
        min_visibility: minimum visible fraction for an object to count.
        valid: `(H, W)`, pixels with data.
    """

    boxes: Boxes
    classes: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    visible_fraction: NDArray[np.float64]
    min_visibility: float
    valid: NDArray[np.bool_]

    @property
    def has_labels(self) -> bool:
        """Whether any pixel has data; a window without objects is background."""
        return bool(self.valid.any())

    @property
    def counted(self) -> NDArray[np.bool_]:
        """`(N)`, whether each object counts."""
        visible = self.visible_fraction >= self.min_visibility - VISIBILITY_TOLERANCE
        counted: NDArray[np.bool_] = ~self.difficult & visible
        return counted

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Hide pixels that are not `valid`, and remove objects that are no longer visible."""
        fractions = _valid_fraction(self.boxes, valid)
        kept = fractions > 0
        return replace(
            self,
            boxes=self.boxes[kept],
            classes=self.classes[kept],
            difficult=self.difficult[kept],
            visible_fraction=(self.visible_fraction * fractions)[kept],
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
        """Warp the boxes by their corners, and keep the objects visible in the new window."""
        boxes = np.asarray(affine_transform(self.boxes, tuple(transform)[:6]), dtype=np.float64)
        fractions, visible = clip_to_window(boxes, shape)
        warped = replace(
            self,
            boxes=boxes[visible],
            classes=self.classes[visible],
            difficult=self.difficult[visible],
            visible_fraction=fractions[visible],
            valid=np.ones(shape, dtype=np.bool_),
        )
        valid = warp_nearest(self.valid.astype(np.uint8), transform, shape, fill=0) == 1
        return warped.masked(valid)

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """All `valid` pixels with data; pixels without objects are background."""
        return self.valid & valid

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The centre pixels of each class's objects, except difficult ones.

        Independent of `min_visibility`: in the windows of a grid each object occurs once.
        """
        pixels = _centre_pixels(self.boxes, self.valid.shape)
        used = ~self.difficult & (self.visible_fraction > 0) & self.valid.flat[pixels]
        for index in np.unique(self.classes[used]):
            yield int(index), pixels[used & (self.classes == index)]

    def regression_values(self) -> NDArray[np.float32]:
        """None: boxes are not standardised."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> list[dict[str, Tensor]]:
        """For each window `boxes` `(N, 4)` or `(N, 5)` float32, `labels` `(N)` int64, and
        `difficult` `(N)` bool, true for all objects that do not count.
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
    """`visible_fraction` of boxes in pixels of a window, and which are at least partly visible."""
    fractions = visible_fraction(boxes, shape)
    middles = centres(boxes)
    inside = ((middles >= 0) & (middles < shape[::-1])).all(axis=1)
    return np.where(inside, fractions, 0.0), fractions > 0


def _valid_fraction(boxes: Boxes, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`(N)`, fraction of valid pixels in the part of each box that is inside the window."""
    fractions = np.ones(len(boxes))
    if valid.all():
        return fractions
    height, width = valid.shape
    invalid = np.zeros((height + 1, width + 1), dtype=np.int64)
    invalid[1:, 1:] = np.cumsum(np.cumsum(~valid, axis=0), axis=1)
    hulls = np.clip(hull(boxes), 0, [width, height, width, height])
    left, top = np.floor(hulls[:, :2]).astype(np.int64).T
    right, bottom = np.ceil(hulls[:, 2:]).astype(np.int64).T
    holes = invalid[bottom, right] - invalid[top, right] - invalid[bottom, left]
    affected = np.flatnonzero(holes + invalid[top, left])
    shapes = to_polygons(as_oriented(boxes[affected]))
    pixels = _centre_pixels(boxes[affected], valid.shape)
    for i, shape, pixel in zip(affected, shapes, pixels, strict=True):
        crop = slice(top[i], bottom[i]), slice(left[i], right[i])
        rows, cols = np.mgrid[crop]
        inside = shapely.contains_xy(shape, cols + 0.5, rows + 0.5)
        fractions[i] = valid[crop][inside].mean() if inside.any() else valid.flat[pixel]
    return fractions


def _centre_pixels(boxes: Boxes, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """`(N)`, flat index of the pixel that contains, or is nearest to, the centre of each box."""
    height, width = shape
    x, y = np.floor(centres(boxes)).astype(np.int64).T
    flat: NDArray[np.int64] = np.clip(y, 0, height - 1) * width + np.clip(x, 0, width - 1)
    return flat
