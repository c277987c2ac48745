"""Detections of a batch from a detector's candidates, of operators that ONNX knows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.boxes.oriented import ORIENTED, canonical
from geotune.detectors.postprocess import (
    PRE_NMS_TOPK,
    Postprocessor,
    centre_inside,
    exported_nms,
)

MAX_CANDIDATES = 1000
"""Boxes per image, before NMS, where the reader of the file does it."""


@dataclass(frozen=True)
class Candidates:
    """What a detector predicts for a batch, before NMS.

    Attributes:
        boxes: `(B, N, D)`.
        scores: `(B, N, K)`.
        size: height and width of the images; boxes whose centre lies outside do not count.
    """

    boxes: Tensor
    scores: Tensor
    size: tuple[int, int]

    def inside(self) -> Tensor:
        """The scores, 0 for boxes with their centre outside the image."""
        valid = centre_inside(self.boxes.float(), self.size)
        return self.scores.float() * valid.unsqueeze(-1)

    def best(self) -> tuple[Tensor, Tensor]:
        """Boxes `(B, M, D)` and all class scores `(B, M, K)` of the `MAX_CANDIDATES` best boxes."""
        scores, boxes = self.inside(), self.boxes.float()
        index = scores.amax(dim=-1).topk(min(MAX_CANDIDATES, scores.shape[1]), dim=1).indices
        index = index.unsqueeze(-1)
        boxes = boxes.gather(1, index.expand(-1, -1, boxes.shape[-1]))
        scores = scores.gather(1, index.expand(-1, -1, scores.shape[-1]))
        return canonical(boxes) if boxes.shape[-1] == ORIENTED else boxes, scores


def best_candidates(candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes `(B, M, D)` with score and class `(B, M)`, best first, before NMS.

    A box that may be of several classes is listed for each.
    """
    boxes, score, label, _ = _ranked(candidates, MAX_CANDIDATES)
    return canonical(boxes) if boxes.shape[-1] == ORIENTED else boxes, score, label


def select(
    candidates: Candidates, postprocess: Postprocessor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Horizontal boxes `(M, 4)`, scores, classes and images `(M)` as `Postprocessor` selects them.

    All images of the batch in one list, best first.
    """
    boxes, score, label, inside = _ranked(candidates, PRE_NMS_TOPK)
    counts = score > postprocess.score_threshold
    image, rank = counts.nonzero(as_tuple=True)
    # bounds of the boxes that count, also where there is none
    bounded = boxes.where(counts.unsqueeze(-1), 0.0)
    low, span = bounded.min(), bounded.max() - bounded.min() + 1
    box, score, label = boxes[image, rank], score[image, rank], label[image, rank]
    group = image * inside.shape[-1] + label
    kept = exported_nms(box, score, group, postprocess.nms_threshold, low=low, span=span)
    kept = kept[score[kept].sort(descending=True).indices]
    image = image[kept]
    of_image = image.unsqueeze(1) == torch.arange(boxes.shape[0], device=boxes.device)
    position = of_image.long().cumsum(0).gather(1, image.unsqueeze(1)).squeeze(1)
    (first,) = (position <= postprocess.max_detections).nonzero(as_tuple=True)
    kept, image = kept[first], image[first]
    return box[kept], score[kept], label[kept], image


def _ranked(candidates: Candidates, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best pairs of box and class: boxes `(B, M, D)`, scores and classes `(B, M)`.

    Last, all scores of boxes inside the image.
    """
    inside, boxes = candidates.inside(), candidates.boxes.float()
    flat = inside.flatten(1)
    score, index = flat.topk(min(count, flat.shape[1]), dim=1)
    classes = inside.shape[-1]
    box = (index // classes).unsqueeze(-1).expand(-1, -1, boxes.shape[-1])
    return boxes.gather(1, box), score, index % classes, inside
