"""RetinaNet (arXiv 1708.02002): one-stage, horizontal anchors, focal loss; torchvision's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead

from geotune.boxes.structures import DetectorOutput
from geotune.detectors.anchors import ASPECT_RATIOS, anchors
from geotune.detectors.assigner import NEITHER, GroundTruth, match_by_iou, num_positives
from geotune.detectors.base import Targets, group_norm
from geotune.detectors.box_coders import HorizontalDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.types import FeatureMaps, Tap

OCTAVE = tuple(2 ** (i / 3) for i in range(3))
"""Sizes of anchors within a level (section 4, "Anchors")."""


class Retinanet(nn.Module):
    """Anchors of three sizes and three aspects on every place of every level.

    An anchor stands for the object that it overlaps most from an IoU of 0.5 on, for none below 0.4,
    and is not learnt from between; every object has the anchor that overlaps it most.
    """

    recomputable = ("levels", "head")
    oriented = False

    def __init__(
        self,
        taps: Sequence[Tap],
        num_outputs: int,
        *,
        channels: int = 256,
        min_stride: float = 4.0,
        num_levels: int = 5,
        anchor_size: float = 4.0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 1000,
    ) -> None:
        """`anchor_size` is the side of each level's smallest anchors, in its strides."""
        super().__init__()
        self.levels = FeaturePyramid(taps, channels, min_stride, num_levels)
        self.sizes = [anchor_size * step for step in OCTAVE]
        self.choice = Postprocessor(score_threshold, nms_threshold, max_detections)
        count = len(OCTAVE) * len(ASPECT_RATIOS)
        self.head = RetinaNetHead(channels, count, num_outputs, norm_layer=group_norm)

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        maps = self.levels(features.maps)
        told = self.head(maps)
        logits, deltas = told["cls_logits"].float(), told["bbox_regression"].float()
        around = torch.cat(anchors(maps, self.levels.strides, self.sizes))
        losses = {}
        if targets is not None:
            losses = _losses(GroundTruth.of(targets), around, logits, deltas)
        if self.training:
            return DetectorOutput(losses, ())
        boxes = HorizontalDeltaCoder.decode(around, deltas)
        return DetectorOutput(
            losses,
            [self.choice.among(b, s.sigmoid(), size) for b, s in zip(boxes, logits, strict=True)],
        )


def _losses(
    truths: Sequence[GroundTruth], around: Tensor, logits: Tensor, deltas: Tensor
) -> dict[str, Tensor]:
    """Of logits `(B, N, K)` and `(B, N, 4)` for anchors `(N, 4)`; the mean over images."""
    losses = {"class": logits.new_zeros(()), "box": logits.new_zeros(())}
    for truth, logit, delta in zip(truths, logits, deltas, strict=True):
        with torch.no_grad():
            overlap = torchvision.ops.box_iou(truth.boxes, around)
            match = match_by_iou(overlap, truth, least=0.5, none_below=0.4, best=True)
            boxes, label = truth.gather(match)
            positive = (match >= 0).float()[:, None]
            is_class = F.one_hot(label, logit.shape[-1]) * positive
            # Anchors without an object are held against themselves.
            true = HorizontalDeltaCoder.encode(around, boxes.where(positive > 0, around))
            count = num_positives(match)
        focal = torchvision.ops.sigmoid_focal_loss(logit, is_class)
        losses["class"] = losses["class"] + (focal * (match != NEITHER)[:, None]).sum() / count
        losses["box"] = losses["box"] + ((delta - true).abs() * positive).sum() / count
    return {name: loss / len(truths) for name, loss in losses.items()}
