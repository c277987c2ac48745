"""What is found in an image and what is there: boxes or points with classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.boxes.oriented import HORIZONTAL, ORIENTED, POINT
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class GroundTruthObjects:
    """The labelled objects of one image.

    Attributes:
        boxes: `(N, 5)` oriented, `(N, 4)` horizontal (`oriented.py`), or points `(N, 2)`.
        classes: `(N)` int64.
        difficult: `(N)` bool: labelled, but neither to be found nor wrong to find. None: no object
            is.
    """

    boxes: Tensor
    classes: Tensor
    difficult: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.boxes, classes=self.classes, difficult=self.difficult)

    def ignored(self) -> Tensor:
        """`difficult`, or as many False."""
        if self.difficult is None:
            return torch.zeros_like(self.classes, dtype=torch.bool)
        return self.difficult


@dataclass(frozen=True)
class Detections:
    """What was found in one image, in any order.

    Attributes:
        boxes: as those of `GroundTruthObjects`.
        scores: `(N)`, higher is surer.
        classes: `(N)` int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __post_init__(self) -> None:
        _check(self.boxes, classes=self.classes, scores=self.scores)

    def __getitem__(self, which: Tensor | slice) -> Detections:
        """Those of a mask, of indices or of a slice."""
        return Detections(self.boxes[which], self.scores[which], self.classes[which])


def _check(boxes: Tensor, **others: Tensor | None) -> None:
    if boxes.dim() != 2 or boxes.shape[1] not in (POINT, HORIZONTAL, ORIENTED):
        raise GeotuneError(
            f"boxes have the shape {tuple(boxes.shape)}, expected (N, 5) oriented, "
            "(N, 4) horizontal or (N, 2) points"
        )
    for name, values in others.items():
        if values is not None and values.shape != boxes.shape[:1]:
            raise GeotuneError(
                f"{name} has the shape {tuple(values.shape)} for {len(boxes)} boxes, "
                f"expected ({len(boxes)},)"
            )
