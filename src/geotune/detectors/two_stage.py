"""Detection in two stages (Faster R-CNN, arXiv 1506.01497): proposals, then a look at each.

    maps -- anchors --> proposals --.   which of many places hold something, and where about
      '--- features of each --------+--> class and box of each

The stages differ between horizontal and oriented boxes only in their box coders (`TwoStageConfig`).
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
from geotune.boxes.structures import DetectorOutput
from geotune.detectors.anchors import ASPECT_RATIOS, anchors
from geotune.detectors.assigner import NEITHER, GroundTruth, match_by_iou, sample_proposals
from geotune.detectors.base import Targets, init_head_conv
from geotune.detectors.box_coders import BoxCoder
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.nms_op import nms_keep_mask
from geotune.detectors.postprocess import Postprocessor, clip_to_image
from geotune.detectors.roi_align import BINS, MultiScaleRoIAlign
from geotune.types import FeatureMaps

CANDIDATES = 2000
"""Anchors of a level, the best, that suppression chooses proposals from."""
PROPOSALS = 1000
"""Of an image, at most."""
PROPOSALS_OVERLAP = 0.7
ANCHORS_LEARNT = 256
"""Of an image: at random, half of them at most for objects."""
PROPOSALS_LEARNT = 512
"""Of an image: at random, a quarter of them at most for objects."""
BETA = 1 / 9
"""Where the smooth L1 loss turns from a parabola to a line."""


@dataclass(frozen=True)
class TwoStageConfig:
    """How the two stages tell boxes.

    Attributes:
        first: proposals from anchors, which are horizontal.
        second: boxes from proposals.
        weights: of what the second stage says, so that its numbers are of one size.
    """

    first: type[BoxCoder]
    second: type[BoxCoder]
    weights: tuple[float, ...]


class TwoStage(nn.Module):
    """See the file's docstring. The box of a proposal is said once, not for each class."""

    recomputable = ("levels", "proposing", "regions")

    def __init__(
        self,
        levels: FeaturePyramid,
        num_classes: int,
        channels: int,
        hidden: int,
        anchor_size: float,
        choice: Postprocessor,
        geometry: TwoStageConfig,
        *,
        oriented: bool,
    ) -> None:
        """`hidden` is the width of the second stage's two layers."""
        super().__init__()
        self.levels = levels
        self.sizes = (anchor_size,)
        self.choice = choice
        self.geometry = geometry
        self.oriented = oriented
        hidden_layer = init_head_conv(nn.Conv2d(channels, channels, 3, padding=1))
        self.proposing = nn.Sequential(hidden_layer, nn.ReLU())
        self.objectness = init_head_conv(nn.Conv2d(channels, len(ASPECT_RATIOS), 1))
        self.first = init_head_conv(
            nn.Conv2d(channels, len(ASPECT_RATIOS) * geometry.first.size, 1)
        )
        self.regions = TwoMLPHead(channels * BINS**2, hidden)
        self.classes = nn.Linear(hidden, num_classes + 1)  # the last: nothing
        self.second = nn.Linear(hidden, geometry.second.size)

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        maps = self.levels(features.maps)
        around = anchors(maps, self.levels.strides, self.sizes)
        told = [self._propose(x) for x in maps]
        proposals, real = self._proposals(around, told, size)
        sheet = MultiScaleRoIAlign(maps[: self.levels.own], self.levels.strides[: self.levels.own])
        losses: dict[str, Tensor] = {}
        if targets is not None:
            truths = GroundTruth.of(targets)
            losses |= self._first_losses(torch.cat(around), told, truths)
            losses |= self._second_losses(sheet, proposals, real, truths, size)
        if self.training:
            return DetectorOutput(losses, ())
        logits, deltas = self._look(sheet, proposals)
        boxes = self.geometry.second.decode(proposals, deltas / self._weights(deltas))
        scores = logits.softmax(dim=-1)[..., :-1] * real[..., None]
        return DetectorOutput(
            losses, [self.choice.among(b, s, size) for b, s in zip(boxes, scores, strict=True)]
        )

    def _propose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of a level's anchors: logits of being an object `(B, N)`, and where it is `(B, N, D)`."""
        hidden = self.proposing(x)
        deltas = self.first(hidden).unflatten(1, (len(ASPECT_RATIOS), self.geometry.first.size))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        return logits.float(), deltas.permute(0, 3, 4, 1, 2).flatten(1, 3).float()

    @torch.no_grad()
    def _proposals(
        self,
        around: Sequence[Tensor],
        told: Sequence[tuple[Tensor, Tensor]],
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Boxes `(B, P, D)`, best first, and which of them are proposals `(B, P)`."""
        boxes, scores, groups = [], [], []
        for level, (anchor, (logits, deltas)) in enumerate(zip(around, told, strict=True)):
            best, index = logits.topk(min(CANDIDATES, logits.shape[1]), dim=1)
            said = deltas.gather(1, index[..., None].expand(-1, -1, deltas.shape[-1]))
            boxes.append(clip_to_image(self.geometry.first.decode(anchor[index], said), size))
            scores.append(best)
            groups.append(torch.full_like(index[0], level))
        box, score, group = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(groups)
        hulls = hull(box)
        stays = torch.stack(
            [
                nms_keep_mask(b, s, group, PROPOSALS_OVERLAP)
                for b, s in zip(hulls, score, strict=True)
            ]
        )
        stays &= ((hulls[..., 2:] - hulls[..., :2]) > 0).all(dim=-1)
        count = min(PROPOSALS, score.shape[1])
        best, index = score.where(stays, -torch.inf).topk(count, dim=1)
        return box.gather(1, index[..., None].expand(-1, -1, box.shape[-1])), best > -torch.inf

    def _look(self, sheet: MultiScaleRoIAlign, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Of proposals `(B, P, D)` logits `(B, P, K + 1)` and where the objects are `(B, P, D)`."""
        hidden = self.regions(sheet.read(proposals))
        shape = proposals.shape[:2]
        return (
            self.classes(hidden).float().unflatten(0, shape),
            self.second(hidden).float().unflatten(0, shape),
        )

    def _weights(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.geometry.weights)

    def _first_losses(
        self, around: Tensor, told: Sequence[tuple[Tensor, Tensor]], truths: Sequence[GroundTruth]
    ) -> dict[str, Tensor]:
        logits = torch.cat([logits for logits, _ in told], dim=1)
        deltas = torch.cat([deltas for _, deltas in told], dim=1)
        is_object, errors, counts = [], [], []
        for truth, logit, delta in zip(truths, logits, deltas, strict=True):
            with torch.no_grad():
                overlap = torchvision.ops.box_iou(hull(truth.boxes), around)
                match = match_by_iou(overlap, truth, least=0.7, none_below=0.3, best=True)
                index, counted = sample_proposals(match, ANCHORS_LEARNT, 0.5)
                match, anchor = match[index], around[index]
                boxes, _ = truth.gather(match)
                positive = ((match >= 0) & counted).float()
                true = self.geometry.first.encode(anchor, boxes)
                true = true.where(positive[:, None] > 0, 0.0)
            entropy = F.binary_cross_entropy_with_logits(logit[index], positive, reduction="none")
            error = F.smooth_l1_loss(delta[index], true, beta=BETA, reduction="none")
            is_object.append((entropy * counted).sum())
            errors.append((error * positive[:, None]).sum())
            counts.append(counted.sum())
        count = torch.stack(counts).sum().clamp(min=1)
        return {
            "proposal": torch.stack(is_object).sum() / count,
            "proposal_box": torch.stack(errors).sum() / count,
        }

    def _second_losses(
        self,
        sheet: MultiScaleRoIAlign,
        proposals: Tensor,
        real: Tensor,
        truths: Sequence[GroundTruth],
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        nothing = self.classes.out_features - 1
        learnt: list[tuple[Tensor, ...]] = []
        # As many of each image, so that they can be looked at together.
        count = min(PROPOSALS_LEARNT, proposals.shape[1])
        with torch.no_grad():
            for truth, proposal, is_real in zip(truths, proposals, real, strict=True):
                # The objects are proposals too: at first there are no others near them.
                boxes = torch.cat([proposal, clip_to_image(truth.boxes, size)])
                overlap = pairwise_iou(truth.boxes, boxes)
                match = match_by_iou(overlap, truth, least=0.5, none_below=0.5, best=False)
                added = torch.ones_like(truth.counted)
                match = match.where(torch.cat([is_real, added]), NEITHER)
                index, counted = sample_proposals(match, count, 0.25)
                true, label = truth.gather(match[index])
                positive = (match[index] >= 0) & counted
                deltas = self.geometry.second.encode(boxes[index], true)
                deltas = deltas * self._weights(deltas)
                learnt.append(
                    (
                        boxes[index],
                        label.where(positive, nothing),
                        deltas.where(positive[:, None], 0.0),
                        positive,
                        counted,
                    )
                )
        boxes, label, true, positive, counted = (torch.stack(x) for x in zip(*learnt, strict=True))
        logits, said = self._look(sheet, boxes)
        entropy = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        error = F.smooth_l1_loss(said, true, beta=BETA, reduction="none")
        total = counted.sum().clamp(min=1)
        return {
            "class": (entropy * counted.flatten()).sum() / total,
            "box": (error * positive[..., None]).sum() / total,
        }
