"""FCOS (arXiv 1904.01355), one-stage and anchor-free, for horizontal and oriented boxes.

Each grid point of each level predicts one object or background: its class, its box, and the
centre-ness of the point (equation 3), which weights the score.

    . . . . .      A point is assigned to an object if it lies inside its box, near its centre, and
    . o-----+ .    on the level of the object's size (sections 3.1 and 3.2); if there are several,
    . | x x | .    to the smallest. An object that contains no point is assigned the nearest
    . +-----o .    one.

Unlike in the paper, boxes are not predicted as distances to the four sides but as centre offset and
log sides, so that a point next to a tiny object can predict it. For oriented boxes the outputs are
the mean of the log sides, and a vector whose length is their difference and whose direction is
twice the angle; it is continuous. Together they are the logarithm of the box's covariance matrix. A
square is the zero vector, from which every angle can be reached directly. With separate outputs,
sides and angle would block each other: a square's angle has no gradient, and while the angle is
unknown, a square is the best estimate of the sides.

Horizontal boxes are trained with GIoU (arXiv 1902.09630), oriented ones with ProbIoU (arXiv
2106.06072), which does not depend on the description of a rectangle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSClassificationHead

from geotune.boxes.box_losses import giou_loss, probiou_loss
from geotune.boxes.structures import Detections, DetectorOutput, Targets
from geotune.config.decoder_options import FcosOptions, RotatedFcosOptions
from geotune.detectors.anchors import grid_centers
from geotune.detectors.assigner import (
    BACKGROUND,
    IGNORE_BOX,
    GroundTruth,
    num_positives,
    rows_per_chunk,
)
from geotune.detectors.base import group_norm, init_head_conv
from geotune.detectors.fpn import FeaturePyramid
from geotune.detectors.postprocess import Postprocessor
from geotune.types import FeatureMaps, Tap

MAX_SIDE = 1e4
"""Upper bound of a predicted side, in strides."""
LEVEL_RANGE = 16.0
"""An object belongs to the finest level on which its long side is at most this many strides."""
EPSILON = 1e-6
"""Added under a square root, whose gradient is infinite at zero."""
CENTER_RADIUS = 1.5
"""Maximum distance of assigned points from an object's centre, along both sides, in strides."""


@dataclass(frozen=True)
class FcosGrid:
    """Grid points of all levels, finest first.

    Attributes:
        centers: `(N, 2)`, x and y on the image.
        stride: `(N)`, stride of the point's level.
        min_size: `(N)`, exclusive lower bound of the long side of objects on the point's level.
        max_size: `(N)`, inclusive upper bound.
    """

    centers: Tensor
    stride: Tensor
    min_size: Tensor
    max_size: Tensor

    @staticmethod
    def from_maps(maps: Sequence[Tensor], strides: Sequence[float]) -> FcosGrid:
        """The grid points of maps `(B, C, H_i, W_i)`."""
        centers = grid_centers(maps, strides)
        ends = [LEVEL_RANGE * stride for stride in strides[:-1]]

        def expand(values: Sequence[float]) -> Tensor:
            """Repeat the value of each level for all its points."""
            return torch.cat(
                [x.new_full((x.shape[0],), v) for x, v in zip(centers, values, strict=True)]
            )

        return FcosGrid(
            torch.cat(centers), expand(strides), expand([-1, *ends]), expand([*ends, math.inf])
        )


def fcos(
    taps: Sequence[Tap], num_outputs: int, options: FcosOptions | RotatedFcosOptions
) -> nn.Module:
    """Build an `Fcos` detector for horizontal or oriented boxes."""
    return Fcos(
        FeaturePyramid(taps, options.channels, options.min_stride, options.num_levels),
        num_outputs,
        options.channels,
        options.depth,
        Postprocessor(options.score_threshold, options.nms_threshold, options.max_detections),
        oriented=options.oriented,
    )


class Fcos(nn.Module):
    """See the module docstring. The score is the root of class probability times centre-ness."""

    recomputable = ("levels", "classes", "tower")

    def __init__(
        self,
        levels: FeaturePyramid,
        num_classes: int,
        channels: int,
        depth: int,
        postprocess: Postprocessor,
        *,
        oriented: bool,
    ) -> None:
        """`depth`: number of hidden convolutions in each of the two branches."""
        super().__init__()
        self.levels = levels
        self.postprocess = postprocess
        self.oriented = oriented
        self.classes = FCOSClassificationHead(
            channels, 1, num_classes, depth, norm_layer=group_norm
        )
        self.tower = nn.Sequential(*(_tower_block(channels) for _ in range(depth)))
        self.box = init_head_conv(nn.Conv2d(channels, 5 if oriented else 4, 3, padding=1))
        self.centreness = init_head_conv(nn.Conv2d(channels, 1, 3, padding=1))
        self.scales = nn.Parameter(torch.ones(len(levels.strides)))

    def forward(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """See `Detector`."""
        grid, logits, boxes, centreness = self._outputs(features)
        losses: dict[str, Tensor] = {}
        if targets is not None:
            truths = GroundTruth.from_targets(targets)
            losses = self._losses(truths, grid, logits, boxes, centreness)
        detections: list[Detections] = []
        if not self.training:
            detections = self.postprocess.select(boxes, _scores(logits, centreness), size)
        return DetectorOutput(losses, detections, partial(_counts, grid))

    def candidates(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Detector`."""
        _, logits, boxes, centreness = self._outputs(features)
        return boxes, _scores(logits, centreness)

    def _outputs(self, features: FeatureMaps) -> tuple[FcosGrid, Tensor, Tensor, Tensor]:
        """The grid points, and for each class logits, box and centre-ness logit."""
        maps = self.levels(features.maps)
        grid = FcosGrid.from_maps(maps, self.levels.strides)
        return grid, self.classes(maps).float(), *self._boxes(maps, grid)

    def _boxes(self, maps: Sequence[Tensor], grid: FcosGrid) -> tuple[Tensor, Tensor]:
        """Boxes `(B, N, D)` and centre-ness logits `(B, N)`."""
        outputs, centreness = [], []
        for x, scale in zip(maps, self.scales, strict=True):
            x = self.tower(x)
            outputs.append((self.box(x).float() * scale).flatten(2).transpose(1, 2))
            centreness.append(self.centreness(x).float().flatten(1))
        values = torch.cat(outputs, dim=1)
        stride = grid.stride[:, None]
        centre = grid.centers + values[..., :2] * stride
        sides = values[..., 2:4]
        if self.oriented:
            mean, difference = values[..., 2:3], values[..., 3:5]
            half = (difference.square().sum(dim=-1, keepdim=True) + EPSILON).sqrt() / 2
            sides = torch.cat([mean + half, mean - half], dim=-1)
        sides = sides.clamp(max=math.log(MAX_SIDE)).exp() * stride
        if self.oriented:
            angle = torch.atan2(values[..., 4:], values[..., 3:4]) / 2
            boxes = torch.cat([centre, sides, angle], dim=-1)
        else:
            boxes = torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)
        return boxes, torch.cat(centreness, dim=1)

    def _losses(
        self,
        truths: Sequence[GroundTruth],
        grid: FcosGrid,
        logits: Tensor,
        boxes: Tensor,
        centreness: Tensor,
    ) -> dict[str, Tensor]:
        """Sums over the `N` points of all `B` images; unused points have weight 0."""
        with torch.no_grad():
            match, target_centreness = _assign_all(truths, grid)
            gathered = [truth.gather(m) for truth, m in zip(truths, match, strict=True)]
            label = torch.stack([classes for _, classes in gathered])
            positive = (match >= 0).float()
            # The target of a point without an object is its own prediction, whose loss is 0.
            target = torch.stack([box for box, _ in gathered])
            target = target.where(match[..., None] >= 0, boxes.detach())
            one_hot = F.one_hot(label, logits.shape[-1]) * positive[..., None]
        focal = torchvision.ops.sigmoid_focal_loss(logits, one_hot)
        box_loss = probiou_loss if self.oriented else giou_loss
        entropy = F.binary_cross_entropy_with_logits(
            centreness, target_centreness, reduction="none"
        )
        return {
            "class": (focal * (match != IGNORE_BOX)[..., None]).sum(),
            "box": (box_loss(boxes, target) * _box_weights(match, target_centreness)).sum(),
            "centreness": (entropy * positive).sum(),
        }


def _scores(logits: Tensor, centreness: Tensor) -> Tensor:
    return (logits.sigmoid() * centreness.sigmoid().unsqueeze(-1)).sqrt()


def _counts(grid: FcosGrid, targets: Targets) -> dict[str, Tensor]:
    """What the losses are divided by."""
    match, centreness = _assign_all(GroundTruth.from_targets(targets), grid)
    return {
        "class": num_positives(match).sum(),
        "box": _box_weights(match, centreness).sum(),
        "centreness": (match >= 0).sum(),
    }


def _box_weights(match: Tensor, centreness: Tensor) -> Tensor:
    return (match >= 0) * centreness.clamp(min=0.1)


def _assign_all(truths: Sequence[GroundTruth], grid: FcosGrid) -> tuple[Tensor, Tensor]:
    """`assign_targets` of all images, `(B, N)` each."""
    matches = [assign_targets(truth, grid) for truth in truths]
    return torch.stack([match for match, _ in matches]), torch.stack([c for _, c in matches])


def assign_targets(truth: GroundTruth, grid: FcosGrid) -> tuple[Tensor, Tensor]:
    """Match each of N grid points: object index, `BACKGROUND` or `IGNORE_BOX`, and centre-ness.

    Both are `(N)`; centre-ness is 0 for points without an object. Objects smaller than two strides
    are enlarged to two strides for it, so that it is positive for points next to them.
    """
    if not len(truth.classes):
        zeros = torch.zeros_like(grid.stride)
        return zeros.long() + BACKGROUND, zeros
    step = rows_per_chunk(len(grid.stride))
    for first in range(0, len(truth.boxes), step):
        size, index, centreness = _smallest_candidate(truth.boxes[first : first + step], grid)
        if first == 0:
            best_size, best_index, best_centreness = size, index, centreness
        else:
            smaller = size < best_size
            best_index = (index + first).where(smaller, best_index)
            best_centreness = centreness.where(smaller, best_centreness)
            best_size = best_size.minimum(size)
    match = truth.mask_ignored(best_index.where(best_size < math.inf, BACKGROUND))
    return match, best_centreness.where(match >= 0, 0.0)


def _smallest_candidate(boxes: Tensor, grid: FcosGrid) -> tuple[Tensor, Tensor, Tensor]:
    """For each point the smallest object that it is a candidate for, of `(M, D)` objects.

    Returns its size, infinite if there is none, its index and the centre-ness, `(N)` each.
    """
    offset, half = _box_frame(boxes, grid.centers)
    offset, half = offset.abs(), half[:, None]
    long = 2 * half.amax(dim=-1)
    on_level = (long > grid.min_size) & (long <= grid.max_size)
    distance = offset / grid.stride[:, None]
    inside = (offset < half).all(dim=-1)
    candidate = on_level & inside & (distance < CENTER_RADIUS).all(dim=-1)
    # An object without a candidate gets the nearest point of its level.
    squared = distance.square().sum(dim=-1).where(on_level, math.inf)
    nearest = on_level & (squared == squared.amin(dim=1, keepdim=True))
    candidate = candidate | (nearest & ~candidate.any(dim=1, keepdim=True))
    smallest, index = half.prod(dim=-1).where(candidate, math.inf).min(dim=0)
    relative = (offset / half.maximum(grid.stride[:, None])).clamp(max=1)
    # equation 3, with min(l, r) / max(l, r) = (1 - relative) / (1 + relative)
    centreness = ((1 - relative) / (1 + relative)).prod(dim=-1).sqrt()
    return smallest, index, centreness.gather(0, index[None])[0]


def _box_frame(boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Points `(N, 2)` in the frames of boxes `(M, D)`, `(M, N, 2)`, and half sides `(M, 2)`."""
    if boxes.shape[1] == 4:
        half = (boxes[:, 2:] - boxes[:, :2]) / 2
        return points - (boxes[:, :2] + half)[:, None], half
    cos, sin = boxes[:, 4].cos()[:, None], boxes[:, 4].sin()[:, None]
    x, y = (points - boxes[:, None, :2]).unbind(dim=-1)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1), boxes[:, 2:4] / 2


def _tower_block(channels: int) -> nn.Sequential:
    convolution = init_head_conv(nn.Conv2d(channels, channels, 3, padding=1))
    return nn.Sequential(convolution, group_norm(channels), nn.ReLU())
