"""Grid centres and anchors of feature maps, in image coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""


def grid_centers(maps: Sequence[Tensor], strides: Sequence[float]) -> list[Tensor]:
    """Centres `(H_i W_i, 2)` of the pixels of maps `(B, C, H_i, W_i)`, as x and y on the image.

    torchvision uses the upper left corners instead; the offset of half a stride matters for small
    objects.
    """
    centers = []
    for x, stride in zip(maps, strides, strict=True):
        height, width = x.shape[-2:]
        rows, columns = (
            (torch.arange(n, device=x.device, dtype=torch.float32) + 0.5) * stride
            for n in (height, width)
        )
        grid = torch.meshgrid(rows, columns, indexing="ij")
        centers.append(torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1))
    return centers


def anchors(
    maps: Sequence[Tensor], strides: Sequence[float], sizes: Sequence[float]
) -> list[Tensor]:
    """Horizontal anchors `(H_i W_i A, 4)`, `A` at each grid centre: all sizes and `ASPECT_RATIOS`.

    Sizes are square roots of areas, in strides. The order is that of torchvision's heads.
    """
    widths = [size * aspect**-0.5 for size in sizes for aspect in ASPECT_RATIOS]
    heights = [size * aspect**0.5 for size in sizes for aspect in ASPECT_RATIOS]
    boxes = []
    for centre, stride in zip(grid_centers(maps, strides), strides, strict=True):
        half = torch.tensor([widths, heights], device=centre.device).T * (stride / 2)
        level = torch.cat([centre[:, None] - half, centre[:, None] + half], dim=-1)
        boxes.append(level.flatten(0, 1))
    return boxes
