"""Where on the image the pixels of a detector's maps are: places, and anchors around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors over their widths."""


def grid_centers(maps: Sequence[Tensor], strides: Sequence[float]) -> list[Tensor]:
    """Middles `(H_i W_i, 2)` of the pixels of maps `(B, C, H_i, W_i)`, as x and y on the image.

    (torchvision's are the upper left corners, half a stride off, which small objects feel.)
    """
    found = []
    for x, stride in zip(maps, strides, strict=True):
        height, width = x.shape[-2:]
        rows, columns = (
            (torch.arange(n, device=x.device, dtype=torch.float32) + 0.5) * stride
            for n in (height, width)
        )
        grid = torch.meshgrid(rows, columns, indexing="ij")
        found.append(torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1))
    return found


def anchors(
    maps: Sequence[Tensor], strides: Sequence[float], sizes: Sequence[float]
) -> list[Tensor]:
    """Horizontal boxes `(H_i W_i A, 4)` around each place: `A` of each size times `ASPECT_RATIOS`.

    Sizes are roots of areas in strides. The order is that of torchvision's heads.
    """
    widths = [size * aspect**-0.5 for size in sizes for aspect in ASPECT_RATIOS]
    heights = [size * aspect**0.5 for size in sizes for aspect in ASPECT_RATIOS]
    found = []
    for centre, stride in zip(grid_centers(maps, strides), strides, strict=True):
        half = torch.tensor([widths, heights], device=centre.device).T * (stride / 2)
        boxes = torch.cat([centre[:, None] - half, centre[:, None] + half], dim=-1)
        found.append(boxes.flatten(0, 1))
    return found
