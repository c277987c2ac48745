"""Multi-scale RoIAlign (arXiv 1612.03144): each region is pooled from the level of its size.

All levels are packed into one canvas, so that regions of all levels are pooled at once, without
grouping them by level:

    +----------------+     Each level is padded by replicating its border, so that sampling near an
    |    finest      |     edge never reads from a neighbouring level.
    |                |
    +--------+----+--+
    | 2nd    |3rd |4.|
    +--------+----+--+

The level of a region is the finest on which its size is at most 28 pixels, as in torchvision, where
224 pixels belong to stride 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor

from geotune.boxes.oriented import HORIZONTAL

OUTPUT_SIZE = 7
"""Bins along each side of a region."""
SAMPLING_RATIO = 2
"""Samples along each side of a bin."""
MAX_REGION_SIZE = 28.0
"""Maximum size of a region on its level, in pixels of the map."""


class MultiScaleRoIAlign:
    """Pools regions from maps `(B, C, H_i, W_i)` of several strides."""

    def __init__(self, maps: Sequence[Tensor], strides: Sequence[float]) -> None:
        finest, *others = [F.pad(x, (1, 1, 1, 1), mode="replicate") for x in maps]
        device = finest.device
        self.strides = torch.tensor(strides, device=device)
        self.sizes = torch.tensor([[x.shape[-1], x.shape[-2]] for x in maps], device=device)
        corners, left = [[1, 1]], 1
        for x in others:
            corners.append([left, finest.shape[-2] + 1])
            left += x.shape[-1]
        self.corners = torch.tensor(corners, device=device)
        height = max((x.shape[-2] for x in others), default=0)
        rows = [F.pad(x, (0, 0, 0, height - x.shape[-2])) for x in others]
        below = torch.cat(rows, dim=-1) if rows else finest[..., :0, :]
        width = max(finest.shape[-1], below.shape[-1])
        bands = [F.pad(x, (0, width - x.shape[-1], 0, 0)) for x in (finest, below)]
        self.canvas = torch.cat(bands, dim=-2).float()

    def __call__(self, regions: Tensor) -> Tensor:
        """Features `(B R, C, OUTPUT_SIZE, OUTPUT_SIZE)` of regions `(B, R, 4)` or `(B, R, 5)`.

        Oriented regions are sampled in their own frame, with the long side horizontal: rotated
        RoIAlign (arXiv 1812.00155). Horizontal regions must lie inside the image.
        """
        level = self._level(regions)
        if regions.shape[-1] == HORIZONTAL:
            return self._horizontal(regions, level)
        return self._oriented(regions, level)

    def _level(self, regions: Tensor) -> Tensor:
        sides = regions[..., 2:4]
        if regions.shape[-1] == HORIZONTAL:
            sides = sides - regions[..., :2]
        size = sides.clamp(min=0).prod(dim=-1).sqrt()
        return torch.bucketize(size, MAX_REGION_SIZE * self.strides[:-1])

    def _horizontal(self, regions: Tensor, level: Tensor) -> Tensor:
        shift = self.corners[level].repeat(1, 1, 2)
        boxes = regions / self.strides[level][..., None] + shift
        image = torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])
        rows = torch.cat([image[:, None].to(boxes.dtype), boxes.flatten(0, 1)], dim=1)
        pooled: Tensor = torchvision.ops.roi_align(
            self.canvas, rows, OUTPUT_SIZE, sampling_ratio=SAMPLING_RATIO, aligned=True
        )
        return pooled

    def _oriented(self, regions: Tensor, level: Tensor) -> Tensor:
        steps = OUTPUT_SIZE * SAMPLING_RATIO
        grid = (torch.arange(steps, device=regions.device) + 0.5) / steps - 0.5
        x, y = regions[..., 2:3] * grid, regions[..., 3:4] * grid  # (B, R, S)
        cos, sin = regions[..., 4].cos()[..., None, None], regions[..., 4].sin()[..., None, None]
        x, y = x[..., None, :], y[..., :, None]
        points = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)  # (B, R, S, S, 2)
        points = points + regions[..., None, None, :2]
        stride = self.strides[level][..., None, None, None]
        inside = (points / stride).clamp(min=0).minimum(self.sizes[level][..., None, None, :])
        points = inside + self.corners[level][..., None, None, :]
        height, width = self.canvas.shape[-2:]
        points = 2 * points / points.new_tensor([width, height]) - 1
        samples = F.grid_sample(self.canvas, points.flatten(1, 2), align_corners=False)
        samples = samples.view(*samples.shape[:2], regions.shape[1], steps, steps)
        samples = samples.transpose(1, 2).flatten(0, 1)  # (B R, C, S, S)
        return F.avg_pool2d(samples, SAMPLING_RATIO)
