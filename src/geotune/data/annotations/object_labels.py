"""The objects of one scene, read by window."""

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
from geotune.data.labels.unread_attributes import Attributes
from geotune.data.raster.windows import Window

MAX_TRIED = 2000
"""Windows that `ObjectLabels.most_in_window` tries."""


@dataclass(frozen=True)
class ObjectLabels:
    """Objects in pixels of the scene.

    Attributes:
        path: the label file.
        classes: names, in the order of their indices.
        shape: the scene's (H, W).
        boxes: `(N, 4)` horizontal or `(N, 5)` oriented.
        indices: `(N)`, class index of each.
        difficult: `(N)`, whether each is ignored in training and evaluation.
        min_visibility: minimum visible fraction of an object's area for it to count in a window.
        overlaps: whether any object lies in the scene; None for a file without objects.
        notes: about this file and the others of its data set.
        unread: attributes of the file if none of them is read as the class.
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
    unread: Attributes = field(default_factory=dict)
    label_unit: ClassVar[str] = "object"
    image_level: ClassVar[bool] = False
    tree: STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(shapely.box(*hull(self.boxes).T)))

    def read(self, window: Window) -> ObjectTarget:
        """The objects that are at least partly in `window`."""
        frame = shapely.box(
            window.col, window.row, window.col + window.width, window.row + window.height
        )
        hits = np.sort(self.tree.query(frame))
        shape = window.height, window.width
        boxes = translate(self.boxes[hits], -window.col, -window.row)
        fractions, visible = clip_to_window(boxes, shape)
        hits = hits[visible]
        return ObjectTarget(
            boxes=boxes[visible],
            classes=self.indices[hits],
            difficult=self.difficult[hits],
            visible_fraction=fractions[visible],
            min_visibility=self.min_visibility,
            valid=np.ones(shape, dtype=np.bool_),
        )

    def check(self, windows: Iterable[Window]) -> None:
        """Do nothing: all objects were checked when the file was opened."""

    def within(self, area: Window) -> ObjectLabels:
        """The objects whose centre is in `area`, in pixels of it."""
        middles = centres(self.boxes) - [area.col, area.row]
        inside = ((middles >= 0) & (middles < [area.width, area.height])).all(axis=1)
        return replace(
            self,
            shape=(area.height, area.width),
            boxes=np.asarray(translate(self.boxes[inside], -area.col, -area.row)),
            indices=self.indices[inside],
            difficult=self.difficult[inside],
        )

    def most_in_window(self, window: int) -> int:
        """The number of objects at least partly in the fullest window of `window` pixels.

        Tries the windows around up to `MAX_TRIED` objects, evenly spaced in their order.
        """
        count = len(self.boxes)
        tried = centres(self.boxes)[np.linspace(0, count - 1, min(count, MAX_TRIED)).astype(int)]
        frames = shapely.box(*(tried - window / 2).T, *(tried + window / 2).T)
        return max((len(self.tree.query(frame)) for frame in frames), default=0)

    def num_uncounted(self, window: int) -> int:
        """The number of objects that count in no window of the scene's grid of `window` pixels.

        The grid or the edge of the scene cuts them, so that no window shows enough of them.
        """
        boxes = as_oriented(self.boxes[~self.difficult])
        low = boxes[:, :2] // window * window
        size = np.clip(np.array(self.shape[::-1]) - low, 0, window)
        size[low < 0] = 0  # no window: the centre is left of the scene or above it
        windows = np.concatenate([low + size / 2, size, np.zeros((len(boxes), 1))], axis=1)
        fractions = intersection(boxes, windows) / (boxes[:, 2] * boxes[:, 3])
        return int((fractions < self.min_visibility - VISIBILITY_TOLERANCE).sum())
