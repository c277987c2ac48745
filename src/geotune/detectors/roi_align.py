"""The features of regions, each read from the level that fits its size (arXiv 1612.03144).

All levels lie side by side on one sheet, so that whatever level a region has, all are read at once
and nothing is sorted by values:

    +----------------+     Each level has a border that repeats its edge: reading near the edge
    |    finest      |     finds what it would find there, and never the neighbour's.
    |                |
    +--------+----+--+
    | 2nd    |3rd |4.|
    +--------+----+--+

A region's level is the finest on which it covers at most 28 pixels: torchvision's rule, whose
224 pixels belong to stride 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor

from geotune.boxes.oriented import HORIZONTAL

BINS = 7
"""Values along a side of a region."""
SAMPLES = 2
"""Places along a side of a bin whose values are averaged."""
LARGEST = 28.0


class MultiScaleRoIAlign:
    """Maps of several strides `(B, C, H_i, W_i)`, laid out to be read by region."""

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
        parts = [F.pad(x, (0, width - x.shape[-1], 0, 0)) for x in (finest, below)]
        self.sheet = torch.cat(parts, dim=-2).float()

    def read(self, regions: Tensor) -> Tensor:
        """Features `(B R, C, BINS, BINS)` of regions `(B, R, 4)`, or `(B, R, 5)` turned upright.

        Oriented ones are read along their sides, long side across: rotated RoIAlign (arXiv
        1812.00155). Horizontal ones lie inside the image.
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
        return torch.bucketize(size, LARGEST * self.strides[:-1])

    def _horizontal(self, regions: Tensor, level: Tensor) -> Tensor:
        shift = self.corners[level].repeat(1, 1, 2)
        placed = regions / self.strides[level][..., None] + shift
        count = placed.shape[1]
        image = torch.arange(len(placed), device=placed.device).repeat_interleave(count)
        rows = torch.cat([image[:, None].to(placed.dtype), placed.flatten(0, 1)], dim=1)
        read: Tensor = torchvision.ops.roi_align(
            self.sheet, rows, BINS, sampling_ratio=SAMPLES, aligned=True
        )
        return read

    def _oriented(self, regions: Tensor, level: Tensor) -> Tensor:
        steps = BINS * SAMPLES
        grid = (torch.arange(steps, device=regions.device) + 0.5) / steps - 0.5
        x, y = regions[..., 2:3] * grid, regions[..., 3:4] * grid  # (B, R, S)
        cos, sin = regions[..., 4].cos()[..., None, None], regions[..., 4].sin()[..., None, None]
        x, y = x[..., None, :], y[..., :, None]
        where = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)  # (B, R, S, S, 2)
        where = where + regions[..., None, None, :2]
        stride = self.strides[level][..., None, None, None]
        inside = (where / stride).clamp(min=0).minimum(self.sizes[level][..., None, None, :])
        placed = inside + self.corners[level][..., None, None, :]
        height, width = self.sheet.shape[-2:]
        placed = 2 * placed / placed.new_tensor([width, height]) - 1
        read = F.grid_sample(self.sheet, placed.flatten(1, 2), align_corners=False)
        read = read.view(*read.shape[:2], regions.shape[1], steps, steps)  # (B, C, R, S, S)
        read = read.transpose(1, 2).flatten(0, 1)
        return F.avg_pool2d(read, SAMPLES)
