"""From many scored boxes to the detections of an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geotune.boxes.nms import nms
from geotune.boxes.oriented import HORIZONTAL, ORIENTED, canonical, centres
from geotune.boxes.structures import Detections

PRE_NMS_TOPK = 10_000
"""Boxes of an image that suppression looks at, the best."""


@dataclass(frozen=True)
class Postprocessor:
    """Which boxes are detections.

    Attributes:
        score_threshold: the least score.
        nms_threshold: IoU with a better one of its class above which a box goes.
        max_detections: how many an image has at most, the best.
    """

    score_threshold: float
    nms_threshold: float
    max_detections: int

    def among(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Detections:
        """Of boxes `(N, D)` with scores `(N, K)` of every class, in an image of `size` (H, W).

        Those whose middle is outside of it go. What the edge cuts off is told whole, as objects are
        labelled.
        """
        boxes, scores = boxes.detach().float(), scores.detach().float()
        inside = _inside(boxes, size)
        # Asked this way around, what is not finite comes through, and `nms` says so.
        below = scores <= self.score_threshold
        box, label = (inside[:, None] & ~below).nonzero(as_tuple=True)
        score = scores[box, label]
        score, best = score.topk(min(PRE_NMS_TOPK, len(score)))
        box, label = box[best], label[best]
        kept = canonical(boxes[box]) if boxes.shape[-1] == ORIENTED else boxes[box]
        stays = nms(kept, score, self.nms_threshold, label)[: self.max_detections]
        return Detections(kept[stays], score[stays], label[stays])


def clip_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Horizontal boxes `(N, 4)` cut to an image of `size` (H, W); oriented ones canonical."""
    if boxes.shape[-1] != HORIZONTAL:
        return canonical(boxes)
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    x, y = centres(boxes).unbind(dim=-1)
    return ~((x < 0) | (x > width) | (y < 0) | (y > height))
