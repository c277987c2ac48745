"""Detection postprocessing: score threshold, NMS and top-k."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.nms import nms
from geotune.boxes.oriented import HORIZONTAL, ORIENTED, canonical, centres
from geotune.boxes.structures import Detections

PRE_NMS_TOPK = 10_000
"""Maximum number of boxes per image that enter NMS."""


@dataclass(frozen=True)
class Postprocessor:
    """Selects the detections of an image.

    Attributes:
        score_threshold: minimum score.
        nms_threshold: IoU with a better box of the same class above which a box is dropped.
        max_detections: maximum number per image.
    """

    score_threshold: float
    nms_threshold: float
    max_detections: int

    def __call__(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Detections:
        """Detections from boxes `(N, D)` and class scores `(N, K)` in an image of `size` (H, W).

        Boxes whose centre is outside the image are dropped. Others are not clipped: objects are
        labelled in full even if they extend past the image.
        """
        boxes, scores = boxes.detach().float(), scores.detach().float()
        inside = centre_inside(boxes, size)
        # The negated comparison keeps NaN, so that `nms` reports it.
        below = scores <= self.score_threshold
        box, label = (inside[:, None] & ~below).nonzero(as_tuple=True)
        score = scores[box, label]
        score, best = score.topk(min(PRE_NMS_TOPK, len(score)))
        box, label = box[best], label[best]
        kept = canonical(boxes[box]) if boxes.shape[-1] == ORIENTED else boxes[box]
        index = nms(kept, score, self.nms_threshold, label)[: self.max_detections]
        return Detections(kept[index], score[index], label[index])

    def select(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> list[Detections]:
        """The detections of each image from boxes `(B, N, D)` and class scores `(B, N, K)`."""
        return [self(b, s, size) for b, s in zip(boxes, scores, strict=True)]


@torch.library.custom_op("geotune::nms_keep_mask", mutates_args=())
def nms_keep_mask(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Mask `(N)` of the boxes `(N, D)` that `boxes.nms.nms` keeps, by `groups` `(N)`.

    A custom operator with a fixed output shape, because fake tensors have no values to suppress by.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.index_fill_(0, nms(boxes, scores, threshold, groups), True)


@nms_keep_mask.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def keep_proposals(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Mask `(B, N)` of the horizontal boxes `(B, N, 4)` that NMS keeps in each of `groups` `(N)`.

    An exported model has no operators of geotune; there, one NMS of torchvision is for all images.
    """
    if not torch.compiler.is_exporting():
        return torch.stack(
            [nms_keep_mask(b, s, groups, threshold) for b, s in zip(boxes, scores, strict=True)]
        )
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    all_groups = (groups + images * (groups.max() + 1)).flatten()
    low, high = boxes.min(), boxes.max()
    kept = exported_nms(
        boxes.flatten(0, 1),
        scores.flatten(),
        all_groups,
        threshold,
        low=low,
        span=high - low + 1,
    )
    mask = torch.zeros_like(scores, dtype=torch.bool).flatten()
    return mask.index_fill(0, kept, True).view_as(scores)


def exported_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    threshold: float,
    *,
    low: Tensor | float,
    span: Tensor | float,
) -> Tensor:
    """Indices of the horizontal boxes `(N, 4)` that NMS keeps in each of `groups` `(N)`.

    As `boxes.nms.nms`, of operators that ONNX knows. Boxes of different groups are moved apart by
    `span`, which is more than the distance of any coordinate from `low`.
    """
    moved = boxes - low + (groups.to(boxes.dtype) * span).unsqueeze(1)
    kept: Tensor = torchvision.ops.nms(moved, scores, threshold)
    return kept


def clip_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip horizontal boxes `(N, 4)` to an image of `size` (H, W); make oriented ones canonical."""
    if boxes.shape[-1] != HORIZONTAL:
        return canonical(boxes)
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def centre_inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Which boxes `(..., D)` have their centre in an image of `size` (H, W); also those of NaN."""
    height, width = size
    x, y = centres(boxes).unbind(dim=-1)
    return ~((x < 0) | (x > width) | (y < 0) | (y > height))
