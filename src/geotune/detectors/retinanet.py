"""RetinaNet (arXiv 1708.02002): one stage, horizontal boxes, focal loss; torchvision's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetHead

from geotune.boxes.structures import DetectorOutput, Targets
from geotune.config.decoder_options import RetinanetOptions
from geotune.detectors.anchors import ASPECT_RATIOS, anchors
from geotune.detectors.assigner import (
    IGNORE_BOX,
    GroundTruth,
    iou_chunks,
    match_by_iou,
    num_positives,
)
from geotune.detectors.base import group_norm
from geotune.detectors.box_coders import HorizontalDeltaCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.types import FeatureMaps, Tap

OCTAVE_SCALES = tuple(2 ** (i / 3) for i in range(3))
"""Relative sizes of the anchors of a level (section 4, "Anchors")."""


class Retinanet(nn.Module):
    """RetinaNet with anchors of three sizes and three aspect ratios at every position.

    Anchors are positive from an IoU of 0.5, negative below 0.4 and ignored in between; every object
    also gets the anchor with which it has its highest IoU.
    """

    recomputable = ("levels", "head")
    oriented = False

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: RetinanetOptions) -> None:
        super().__init__()
        channels = options.channels
        self.levels = FeaturePyramid(taps, channels, options.min_stride, options.num_levels)
        self.sizes = [options.anchor_size * scale for scale in OCTAVE_SCALES]
        self.postprocess = Postprocessor(
            options.score_threshold, options.nms_threshold, options.max_detections
        )
        count = len(OCTAVE_SCALES) * len(ASPECT_RATIOS)
        self.head = RetinaNetHead(channels, count, num_outputs, norm_layer=group_norm)

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        all_anchors, logits, deltas = self._outputs(features)
        losses = {}
        if targets is not None:
            losses = _losses(GroundTruth.from_targets(targets), all_anchors, logits, deltas)
        if self.training:
            return DetectorOutput(losses, ())
        boxes = HorizontalDeltaCoder.decode(all_anchors, deltas)
        return DetectorOutput(losses, self.postprocess.select(boxes, logits.sigmoid(), size))

    def candidates(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        all_anchors, logits, deltas = self._outputs(features)
        return HorizontalDeltaCoder.decode(all_anchors, deltas), logits.sigmoid()

    def _outputs(self, features: FeatureMaps) -> tuple[Tensor, Tensor, Tensor]:
        """The anchors, and for each class logits and deltas."""
        maps = self.levels(features.maps)
        outputs = self.head(maps)
        all_anchors = torch.cat(anchors(maps, self.levels.strides, self.sizes))
        return all_anchors, outputs["cls_logits"].float(), outputs["bbox_regression"].float()


def _losses(
    truths: Sequence[GroundTruth], all_anchors: Tensor, logits: Tensor, deltas: Tensor
) -> dict[str, Tensor]:
    """Sum over images, from anchors `(N, 4)`, logits `(B, N, K)` and deltas `(B, N, 4)`."""
    losses = {"class": logits.new_zeros(()), "box": logits.new_zeros(())}
    for truth, logit, delta in zip(truths, logits, deltas, strict=True):
        with torch.no_grad():
            iou = iou_chunks(torchvision.ops.box_iou, truth.boxes, all_anchors)
            match = match_by_iou(
                iou, truth, fg_threshold=0.5, bg_threshold=0.4, allow_low_quality=True
            )
            boxes, label = truth.gather(match)
            positive = (match >= 0).float()[:, None]
            one_hot = F.one_hot(label, logit.shape[-1]) * positive
            # Anchors without an object are their own target; their loss is masked.
            boxes = boxes.where(positive > 0, all_anchors)
            target = HorizontalDeltaCoder.encode(all_anchors, boxes)
            count = num_positives(match)
        focal = torchvision.ops.sigmoid_focal_loss(logit, one_hot)
        losses["class"] = losses["class"] + (focal * (match != IGNORE_BOX)[:, None]).sum() / count
        losses["box"] = losses["box"] + ((delta - target).abs() * positive).sum() / count
    return losses
