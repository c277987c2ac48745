"""Labelled objects, detections and detector outputs: boxes or points with classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.boxes.oriented import HORIZONTAL, ORIENTED, POINT
from geotune.errors import GeotuneError

Targets = Sequence[Mapping[str, Tensor]]
"""Detection targets, for each image `boxes` `(M, D)`, `labels` `(M)` and `difficult` `(M)`."""


@dataclass(frozen=True)
class GroundTruthObjects:
    """The labelled objects of one image.

    Attributes:
        boxes: `(N, 5)` oriented, `(N, 4)` horizontal (`oriented.py`), or points `(N, 2)`.
        classes: `(N)` int64.
        difficult: `(N)` bool: objects that count neither as found nor as missed, as in VOC and
            DOTA; None if there are none.
    """

    boxes: Tensor
    classes: Tensor
    difficult: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.boxes, classes=self.classes, difficult=self.difficult)

    def ignored(self) -> Tensor:
        """`difficult`, or all False."""
        if self.difficult is None:
            return torch.zeros_like(self.classes, dtype=torch.bool)
        return self.difficult


@dataclass(frozen=True)
class Detections:
    """The detections of one image, in any order.

    Attributes:
        boxes: as in `GroundTruthObjects`.
        scores: `(N)`, higher is more confident.
        classes: `(N)` int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __post_init__(self) -> None:
        _check(self.boxes, classes=self.classes, scores=self.scores)

    def __getitem__(self, index: Tensor | slice) -> Detections:
        """Select by a mask, indices or a slice."""
        return Detections(self.boxes[index], self.scores[index], self.classes[index])


@dataclass(frozen=True)
class DetectorOutput:
    """Losses and detections of a batch; `[i : i + 1]` selects one image.

    Attributes:
        losses: each loss, summed over the batch; empty without targets or after slicing.
        detections: the detections of each image, best first; empty in training mode.
        count: what the losses are divided by, for the targets of any images of the same size;
            None: all are divided by the number of images.
    """

    losses: Mapping[str, Tensor]
    detections: Sequence[Detections]
    count: Callable[[Targets], Mapping[str, Tensor]] | None = None

    def counts(self, targets: Targets) -> Mapping[str, Tensor]:
        """What each loss is divided by, for these targets."""
        if self.count is not None:
            return self.count(targets)
        return {name: x.new_tensor(len(targets)) for name, x in self.losses.items()}

    def __getitem__(self, index: slice) -> DetectorOutput:
        """Select images."""
        return DetectorOutput({}, self.detections[index])


def _check(boxes: Tensor, **others: Tensor | None) -> None:
    if boxes.dim() != 2 or boxes.shape[1] not in (POINT, HORIZONTAL, ORIENTED):
        raise GeotuneError(
            f"boxes have shape {tuple(boxes.shape)}, expected (N, 5) for oriented boxes, "
            "(N, 4) for horizontal boxes or (N, 2) for points",
            code="boxes-invalid",
        )
    for name, values in others.items():
        if values is not None and values.shape != boxes.shape[:1]:
            raise GeotuneError(
                f"{name} has shape {tuple(values.shape)} for {len(boxes)} boxes, "
                f"expected ({len(boxes)},)",
                code="boxes-invalid",
            )
