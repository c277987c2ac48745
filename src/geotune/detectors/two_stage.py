"""Two-stage detection (Faster R-CNN, arXiv 1506.01497): proposals, then their classification.

    maps -- anchors --> proposals --.          first stage: region proposal network
      '--- RoIAlign of each --------+--> class and box of each proposal

Horizontal and oriented detectors differ only in their box coders (`TwoStageCoders`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from geotune.boxes.iou import pairwise_iou
from geotune.boxes.oriented import hull
from geotune.boxes.structures import DetectorOutput, Targets
from geotune.detectors.anchors import ASPECT_RATIOS, anchors
from geotune.detectors.assigner import (
    IGNORE_BOX,
    GroundTruth,
    iou_chunks,
    match_by_iou,
    sample_proposals,
)
from geotune.detectors.base import init_head_conv
from geotune.detectors.box_coders import BoxCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor, clip_to_image, keep_proposals
from geotune.detectors.roi_align import OUTPUT_SIZE, MultiScaleRoIAlign
from geotune.types import FeatureMaps

RPN_PRE_NMS_TOPK = 2000
"""Anchors per level that enter NMS."""
MAX_PROPOSALS = 1000
"""Proposals per image."""
RPN_NMS_THRESHOLD = 0.7
RPN_BATCH_SIZE = 256
"""Anchors sampled per image for the loss, at most half of them positive."""
ROI_BATCH_SIZE = 512
"""Proposals sampled per image for the loss, at most a quarter of them positive."""
SMOOTH_L1_BETA = 1 / 9
"""Error at which the smooth L1 loss changes from quadratic to linear."""


@dataclass(frozen=True)
class TwoStageCoders:
    """The box coders of the two stages.

    Attributes:
        first: proposals relative to the (horizontal) anchors.
        second: boxes relative to proposals.
        weights: factors of the second stage's deltas, which bring them to a similar scale.
    """

    first: type[BoxCoder]
    second: type[BoxCoder]
    weights: tuple[float, ...]


class TwoStage(nn.Module):
    """See the module docstring. Boxes are predicted once per proposal, not once per class."""

    recomputable = ("levels", "proposing", "regions")

    def __init__(
        self,
        levels: FeaturePyramid,
        num_classes: int,
        channels: int,
        hidden: int,
        anchor_size: float,
        postprocess: Postprocessor,
        coders: TwoStageCoders,
        *,
        oriented: bool,
    ) -> None:
        """`hidden`: width of the two layers of the second stage."""
        super().__init__()
        self.levels = levels
        self.sizes = (anchor_size,)
        self.postprocess = postprocess
        self.coders = coders
        self.oriented = oriented
        hidden_layer = init_head_conv(nn.Conv2d(channels, channels, 3, padding=1))
        self.proposing = nn.Sequential(hidden_layer, nn.ReLU())
        self.objectness = init_head_conv(nn.Conv2d(channels, len(ASPECT_RATIOS), 1))
        self.first = init_head_conv(nn.Conv2d(channels, len(ASPECT_RATIOS) * coders.first.size, 1))
        self.regions = TwoMLPHead(channels * OUTPUT_SIZE**2, hidden)
        self.classes = nn.Linear(hidden, num_classes + 1)  # the last is background
        self.second = nn.Linear(hidden, coders.second.size)

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        maps = self.levels(features.maps)
        level_anchors = anchors(maps, self.levels.strides, self.sizes)
        rpn_outputs = [self._rpn(x) for x in maps]
        proposals, valid = self._select_proposals(level_anchors, rpn_outputs, size)
        roi_align = self._roi_align(maps)
        losses: dict[str, Tensor] = {}
        if targets is not None:
            truths = GroundTruth.from_targets(targets)
            losses |= self._rpn_losses(torch.cat(level_anchors), rpn_outputs, truths)
            losses |= self._roi_losses(roi_align, proposals, valid, truths, size)
        if self.training:
            return DetectorOutput(losses, ())
        boxes, scores = self._classified(roi_align, proposals, valid)
        return DetectorOutput(losses, self.postprocess.select(boxes, scores, size))

    def candidates(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Detector`; the proposals are selected by their boxes, always as many."""
        maps = self.levels(features.maps)
        level_anchors = anchors(maps, self.levels.strides, self.sizes)
        proposals, valid = self._select_proposals(level_anchors, [self._rpn(x) for x in maps], size)
        return self._classified(self._roi_align(maps), proposals, valid)

    def _roi_align(self, maps: Sequence[Tensor]) -> MultiScaleRoIAlign:
        levels = self.levels.num_encoder_levels
        return MultiScaleRoIAlign(maps[:levels], self.levels.strides[:levels])

    def _classified(
        self, roi_align: MultiScaleRoIAlign, proposals: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes `(B, P, D)` and class scores `(B, P, K)`; 0 for proposals that are not `valid`."""
        logits, deltas = self._roi_head(roi_align, proposals)
        boxes = self.coders.second.decode(proposals, deltas / self._weights(deltas))
        return boxes, logits.softmax(dim=-1)[..., :-1] * valid[..., None]

    def _rpn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness logits `(B, N)` and deltas `(B, N, D)` for the anchors of a level."""
        hidden = self.proposing(x)
        deltas = self.first(hidden).unflatten(1, (len(ASPECT_RATIOS), self.coders.first.size))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        return logits.float(), deltas.permute(0, 3, 4, 1, 2).flatten(1, 3).float()

    @torch.no_grad()
    def _select_proposals(
        self,
        level_anchors: Sequence[Tensor],
        rpn_outputs: Sequence[tuple[Tensor, Tensor]],
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Proposals `(B, P, D)`, best first, and a mask of the valid ones `(B, P)`."""
        boxes, scores, groups = [], [], []
        for level, (anchor, (logits, deltas)) in enumerate(
            zip(level_anchors, rpn_outputs, strict=True)
        ):
            best, index = logits.topk(min(RPN_PRE_NMS_TOPK, logits.shape[1]), dim=1)
            delta = deltas.gather(1, index[..., None].expand(-1, -1, deltas.shape[-1]))
            boxes.append(clip_to_image(self.coders.first.decode(anchor[index], delta), size))
            scores.append(best)
            groups.append(torch.full_like(index[0], level))
        box, score, group = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(groups)
        hulls = hull(box)
        kept = keep_proposals(hulls, score, group, RPN_NMS_THRESHOLD)
        kept &= ((hulls[..., 2:] - hulls[..., :2]) > 0).all(dim=-1)
        count = min(MAX_PROPOSALS, score.shape[1])
        best, index = score.where(kept, -torch.inf).topk(count, dim=1)
        return box.gather(1, index[..., None].expand(-1, -1, box.shape[-1])), best > -torch.inf

    def _roi_head(self, roi_align: MultiScaleRoIAlign, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits `(B, P, K + 1)` and deltas `(B, P, D)` for proposals `(B, P, D)`."""
        hidden = self.regions(roi_align(proposals))
        shape = proposals.shape[:2]
        return (
            self.classes(hidden).float().unflatten(0, shape),
            self.second(hidden).float().unflatten(0, shape),
        )

    def _weights(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.coders.weights)

    def _rpn_losses(
        self,
        all_anchors: Tensor,
        rpn_outputs: Sequence[tuple[Tensor, Tensor]],
        truths: Sequence[GroundTruth],
    ) -> dict[str, Tensor]:
        """Mean over the anchors sampled in an image, summed over the images."""
        logits = torch.cat([logits for logits, _ in rpn_outputs], dim=1)
        deltas = torch.cat([deltas for _, deltas in rpn_outputs], dim=1)
        entropies, errors = [], []
        for truth, logit, delta in zip(truths, logits, deltas, strict=True):
            with torch.no_grad():
                iou = iou_chunks(torchvision.ops.box_iou, hull(truth.boxes), all_anchors)
                match = match_by_iou(
                    iou, truth, fg_threshold=0.7, bg_threshold=0.3, allow_low_quality=True
                )
                index, valid = sample_proposals(match, RPN_BATCH_SIZE, 0.5)
                match, anchor = match[index], all_anchors[index]
                boxes, _ = truth.gather(match)
                positive = ((match >= 0) & valid).float()
                target = self.coders.first.encode(anchor, boxes)
                target = target.where(positive[:, None] > 0, 0.0)
            entropy = F.binary_cross_entropy_with_logits(logit[index], positive, reduction="none")
            error = F.smooth_l1_loss(delta[index], target, beta=SMOOTH_L1_BETA, reduction="none")
            count = valid.sum().clamp(min=1)
            entropies.append((entropy * valid).sum() / count)
            errors.append((error * positive[:, None]).sum() / count)
        return {
            "proposal": torch.stack(entropies).sum(),
            "proposal_box": torch.stack(errors).sum(),
        }

    def _roi_losses(
        self,
        roi_align: MultiScaleRoIAlign,
        proposals: Tensor,
        valid: Tensor,
        truths: Sequence[GroundTruth],
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Mean over the proposals sampled in an image, summed over the images."""
        background = self.classes.out_features - 1
        samples: list[tuple[Tensor, ...]] = []
        # The same number for each image, so that they can be batched.
        count = min(ROI_BATCH_SIZE, proposals.shape[1])
        with torch.no_grad():
            for truth, proposal, is_valid in zip(truths, proposals, valid, strict=True):
                # Objects are added as proposals: early in training no others are near them.
                boxes = torch.cat([proposal, clip_to_image(truth.boxes, size)])
                iou = iou_chunks(pairwise_iou, truth.boxes, boxes)
                match = match_by_iou(
                    iou, truth, fg_threshold=0.5, bg_threshold=0.5, allow_low_quality=False
                )
                added = torch.ones_like(truth.counted)
                match = match.where(torch.cat([is_valid, added]), IGNORE_BOX)
                index, sampled = sample_proposals(match, count, 0.25)
                target, label = truth.gather(match[index])
                positive = (match[index] >= 0) & sampled
                deltas = self.coders.second.encode(boxes[index], target)
                deltas = deltas * self._weights(deltas)
                samples.append(
                    (
                        boxes[index],
                        label.where(positive, background),
                        deltas.where(positive[:, None], 0.0),
                        positive,
                        sampled,
                    )
                )
        boxes, label, target, positive, sampled = (
            torch.stack(x) for x in zip(*samples, strict=True)
        )
        logits, deltas = self._roi_head(roi_align, boxes)
        entropy = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        error = F.smooth_l1_loss(deltas, target, beta=SMOOTH_L1_BETA, reduction="none")
        weight = 1 / sampled.sum(dim=1, keepdim=True).clamp(min=1)  # mean over an image's sample
        return {
            "class": (entropy.view_as(sampled) * sampled * weight).sum(),
            "box": (error * (positive * weight)[..., None]).sum(),
        }
