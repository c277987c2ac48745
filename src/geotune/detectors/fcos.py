"""FCOS (arXiv 1904.01355), one-stage and without anchors, for horizontal and oriented boxes.

Every place of every level answers for one object or for none: it says its class, where it is, and
how near its middle the place lies (centre-ness, equation 3, by which scores are weighed).

    . . . . .      A place stands for an object where it lies inside of it, near its middle, and
    . o-----+ .    where the level is that of the object's size (sections 3.1 and 3.2). Of several
    . | x x | .    objects the smallest has it. An object so small that it lies between all places
    . +-----o .    gets the nearest one.

The box is not told by its distances to the place, as in the paper, but by its middle from there
and the logarithms of its sides: a place beside a tiny object can say where that is. Of an oriented
one the mean of these logarithms is told, and a vector as long as their difference at twice the
angle, which has no end at which it jumps. Together they are the logarithm of the box's covariance;
a square is its zero, beside which every angle is a straight way off. (Told apart, sides and angle
wait for one another: a square's angle has no gradient, and as long as the angle is not known a
square is the best guess of the sides.) A horizontal box is
learnt by GIoU (arXiv 1902.09630), an oriented one by ProbIoU (arXiv 2106.06072) as a whole, so
that nothing depends on which of its descriptions is meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSClassificationHead

from geotune.boxes.box_losses import giou_loss, probiou_loss
from geotune.boxes.structures import DetectorOutput
from geotune.detectors.anchors import grid_centers
from geotune.detectors.assigner import BACKGROUND, NEITHER, GroundTruth, num_positives
from geotune.detectors.base import Targets, group_norm, init_head_conv
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.types import FeatureMaps, Tap

LONGEST_SIDE = 1e4
"""Of a box, in strides: what its logarithm cannot make it grow beyond."""
RANGE = 16.0
"""An object belongs to the finest level of which its long side has at most so many strides."""
ROUND = 1e-6
"""Under a root, whose gradient is infinite at zero."""
NEAR = 1.5
"""Places so many strides from an object's middle, along both sides, may stand for it."""


@dataclass(frozen=True)
class FcosGrid:
    """All places of all levels, finest first.

    Attributes:
        where: `(N, 2)`, x and y on the image.
        stride: `(N)`, of their level.
        above: `(N)`, the long side up to which objects belong to finer levels.
        up_to: `(N)`, the long side up to which they belong to this one.
    """

    where: Tensor
    stride: Tensor
    above: Tensor
    up_to: Tensor

    @staticmethod
    def of(maps: Sequence[Tensor], strides: Sequence[float]) -> FcosGrid:
        """Those of maps `(B, C, H_i, W_i)`."""
        where = grid_centers(maps, strides)
        ends = [RANGE * stride for stride in strides[:-1]]

        def each(values: Sequence[float]) -> Tensor:
            parts = [x.new_full((len(x),), v) for x, v in zip(where, values, strict=True)]
            return torch.cat(parts)

        return FcosGrid(torch.cat(where), each(strides), each([-1, *ends]), each([*ends, math.inf]))


def fcos(
    taps: Sequence[Tap],
    num_outputs: int,
    *,
    channels: int = 256,
    depth: int = 4,
    min_stride: float = 4.0,
    num_levels: int = 5,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.6,
    max_detections: int = 1000,
) -> nn.Module:
    """Horizontal boxes; see `Fcos`."""
    choice = Postprocessor(score_threshold, nms_threshold, max_detections)
    pyramid = FeaturePyramid(taps, channels, min_stride, num_levels)
    return Fcos(pyramid, num_outputs, channels, depth, choice, oriented=False)


def rotated_fcos(
    taps: Sequence[Tap],
    num_outputs: int,
    *,
    channels: int = 256,
    depth: int = 4,
    min_stride: float = 4.0,
    num_levels: int = 5,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.1,
    max_detections: int = 1000,
) -> nn.Module:
    """Oriented boxes; see `Fcos`."""
    choice = Postprocessor(score_threshold, nms_threshold, max_detections)
    pyramid = FeaturePyramid(taps, channels, min_stride, num_levels)
    return Fcos(pyramid, num_outputs, channels, depth, choice, oriented=True)


class Fcos(nn.Module):
    """See the file's docstring. A score is the root of class probability times centre-ness."""

    recomputable = ("levels", "classes", "tower")

    def __init__(
        self,
        levels: FeaturePyramid,
        num_classes: int,
        channels: int,
        depth: int,
        choice: Postprocessor,
        *,
        oriented: bool,
    ) -> None:
        """`depth` counts the hidden convolutions of each of the two branches."""
        super().__init__()
        self.levels = levels
        self.choice = choice
        self.oriented = oriented
        self.classes = FCOSClassificationHead(
            channels, 1, num_classes, depth, norm_layer=group_norm
        )
        self.tower = nn.Sequential(*(_block(channels) for _ in range(depth)))
        self.box = init_head_conv(nn.Conv2d(channels, 5 if oriented else 4, 3, padding=1))
        self.centreness = init_head_conv(nn.Conv2d(channels, 1, 3, padding=1))
        self.scales = nn.Parameter(torch.ones(len(levels.strides)))

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        maps = self.levels(features.maps)
        grid = FcosGrid.of(maps, self.levels.strides)
        logits = self.classes(maps).float()
        boxes, centreness = self._boxes(maps, grid)
        losses = {}
        if targets is not None:
            losses = self._losses(GroundTruth.of(targets), grid, logits, boxes, centreness)
        if self.training:
            return DetectorOutput(losses, ())
        scores = (logits.sigmoid() * centreness.sigmoid().unsqueeze(-1)).sqrt()
        return DetectorOutput(
            losses, [self.choice.among(b, s, size) for b, s in zip(boxes, scores, strict=True)]
        )

    def _boxes(self, maps: Sequence[Tensor], grid: FcosGrid) -> tuple[Tensor, Tensor]:
        """Boxes `(B, N, D)` and logits of centre-ness `(B, N)`."""
        told, middles = [], []
        for x, scale in zip(maps, self.scales, strict=True):
            x = self.tower(x)
            told.append((self.box(x).float() * scale).flatten(2).transpose(1, 2))
            middles.append(self.centreness(x).float().flatten(1))
        values = torch.cat(told, dim=1)
        stride = grid.stride[:, None]
        centre = grid.where + values[..., :2] * stride
        sides = values[..., 2:4]
        if self.oriented:
            mean, apart = values[..., 2:3], values[..., 3:5]
            half = (apart.square().sum(dim=-1, keepdim=True) + ROUND).sqrt() / 2
            sides = torch.cat([mean + half, mean - half], dim=-1)
        sides = sides.clamp(max=math.log(LONGEST_SIDE)).exp() * stride
        if self.oriented:
            angle = torch.atan2(values[..., 4:], values[..., 3:4]) / 2
            boxes = torch.cat([centre, sides, angle], dim=-1)
        else:
            boxes = torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)
        return boxes, torch.cat(middles, dim=1)

    def _losses(
        self,
        truths: Sequence[GroundTruth],
        grid: FcosGrid,
        logits: Tensor,
        boxes: Tensor,
        centreness: Tensor,
    ) -> dict[str, Tensor]:
        """Of all places `N` of all images `B`; what a place has no part in has no weight there."""
        with torch.no_grad():
            matches = [assign_targets(truth, grid) for truth in truths]
            match = torch.stack([m for m, _ in matches])
            middle = torch.stack([c for _, c in matches])
            chosen = [truth.gather(m) for truth, (m, _) in zip(truths, matches, strict=True)]
            label = torch.stack([classes for _, classes in chosen])
            positive = (match >= 0).float()
            # Places without an object are held against a box that nothing is wrong with.
            true = torch.stack([box for box, _ in chosen])
            true = true.where(match[..., None] >= 0, boxes.detach())
            is_class = F.one_hot(label, logits.shape[-1]) * positive[..., None]
        focal = torchvision.ops.sigmoid_focal_loss(logits, is_class)
        overlap = probiou_loss if self.oriented else giou_loss
        near = F.binary_cross_entropy_with_logits(centreness, middle, reduction="none")
        weight = positive * middle.clamp(min=0.1)
        count = positive.sum().clamp(min=1)
        return {
            "class": (focal * (match != NEITHER)[..., None]).sum() / num_positives(match).sum(),
            "box": (overlap(boxes, true) * weight).sum() / weight.sum().clamp(min=1),
            "centreness": (near * positive).sum() / count,
        }


def assign_targets(truth: GroundTruth, grid: FcosGrid) -> tuple[Tensor, Tensor]:
    """For each of N places its object and its centre-ness.

    The index `(N)` of the object, or `BACKGROUND`, or `NEITHER`; centre-ness `(N)` is 0 there. Of
    an object smaller than two strides it is that of one of two strides, so that a place beside it
    has some as well.
    """
    if not len(truth.classes):
        nothing = torch.zeros_like(grid.stride)
        return nothing.long() + BACKGROUND, nothing
    offset, half = _seen_from(truth.boxes, grid.where)
    offset, half = offset.abs(), half[:, None]
    long = 2 * half.amax(dim=-1)
    fits = (long > grid.above) & (long <= grid.up_to)
    reach = offset / grid.stride[:, None]
    stands = fits & (offset < half).all(dim=-1) & (reach < NEAR).all(dim=-1)
    # An object that has no place gets the one that is nearest, of its level.
    distance = reach.square().sum(dim=-1).where(fits, math.inf)
    nearest = fits & (distance == distance.amin(dim=1, keepdim=True))
    stands = stands | (nearest & ~stands.any(dim=1, keepdim=True))
    smallest, index = half.prod(dim=-1).where(stands, math.inf).min(dim=0)
    match = truth.mask_ignored(index.where(smallest < math.inf, BACKGROUND))
    gap = (offset / half.maximum(grid.stride[:, None])).clamp(max=1)
    each = ((1 - gap) / (1 + gap)).prod(dim=-1).sqrt()  # min(l, r) / max(l, r), and so on
    return match, each.gather(0, index[None])[0].where(match >= 0, 0.0)


def _seen_from(boxes: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Places from the middles of boxes, in their frames `(M, N, 2)`, and half sides `(M, 2)`."""
    if boxes.shape[1] == 4:
        half = (boxes[:, 2:] - boxes[:, :2]) / 2
        return where - (boxes[:, :2] + half)[:, None], half
    cos, sin = boxes[:, 4].cos()[:, None], boxes[:, 4].sin()[:, None]
    x, y = (where - boxes[:, None, :2]).unbind(dim=-1)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1), boxes[:, 2:4] / 2


def _block(channels: int) -> nn.Sequential:
    convolution = init_head_conv(nn.Conv2d(channels, channels, 3, padding=1))
    return nn.Sequential(convolution, group_norm(channels), nn.ReLU())
