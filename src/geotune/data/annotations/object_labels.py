"""The objects of one scene, by window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import STRtree

from geotune.boxes.intersection import intersection
from geotune.boxes.oriented import as_oriented, centres, hull
from geotune.boxes.transforms import translate
from geotune.data.annotations.object_target import (
    VISIBILITY_TOLERANCE,
    Boxes,
    ObjectTarget,
    clip_to_window,
)
from geotune.data.raster.windows import Window


@dataclass(frozen=True)
class ObjectLabels:
    """Objects in pixels of the scene.

    Attributes:
        path: the file.
        classes: names, in the order of the indices.
        shape: the scene's (H, W).
        boxes: `(N, 4)` horizontal or `(N, 5)` oriented.
        indices: `(N)` class index of each.
        difficult: `(N)` which are neither to be found nor wrong to find.
        visible: the least share of its area by which an object counts in a window.
        overlaps: whether an object lies in the scene; None for a file without any.
        notes: what was noticed in this file and the others of its dataset.
    """

    path: Path
    classes: tuple[str, ...]
    shape: tuple[int, int]
    boxes: Boxes
    indices: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    min_visibility: float
    overlaps: bool | None
    notes: tuple[str, ...] = ()
    label_unit: ClassVar[str] = "object"
    image_level: ClassVar[bool] = False
    tree: STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(shapely.box(*hull(self.boxes).T)))

    def read(self, window: Window) -> ObjectTarget:
        """The objects of which any part lies in `window`."""
        frame = shapely.box(
            window.col, window.row, window.col + window.width, window.row + window.height
        )
        hits = np.sort(self.tree.query(frame))
        shape = window.height, window.width
        boxes = translate(self.boxes[hits], -window.col, -window.row)
        shares, there = clip_to_window(boxes, shape)
        hits = hits[there]
        return ObjectTarget(
            boxes=boxes[there],
            classes=self.indices[hits],
            difficult=self.difficult[hits],
            visible_fraction=shares[there],
            min_visibility=self.min_visibility,
            valid=np.ones(shape, dtype=np.bool_),
        )

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing is left to check: every object was looked at when the file was opened."""

    def within(self, area: Window) -> ObjectLabels:
        """Those of which the centre lies in `area`, in pixels of it."""
        middles = centres(self.boxes) - [area.col, area.row]
        there = ((middles >= 0) & (middles < [area.width, area.height])).all(axis=1)
        return replace(
            self,
            shape=(area.height, area.width),
            boxes=np.asarray(translate(self.boxes[there], -area.col, -area.row)),
            indices=self.indices[there],
            difficult=self.difficult[there],
        )

    def num_uncounted(self, window: int) -> int:
        """How many objects count in no window of the scene's grid of `window` pixels.

        The grid's lines or the scene's edge cut them so that no window shows enough of them.
        """
        boxes = as_oriented(self.boxes[~self.difficult])
        low = boxes[:, :2] // window * window
        size = np.clip(np.array(self.shape[::-1]) - low, 0, window)
        size[low < 0] = 0  # there is no window: the centre lies left of the scene or above it
        windows = np.concatenate([low + size / 2, size, np.zeros((len(boxes), 1))], axis=1)
        shares = intersection(boxes, windows) / (boxes[:, 2] * boxes[:, 3])
        return int((shares < self.min_visibility - VISIBILITY_TOLERANCE).sum())
