"""Stem: a narrow convolutional branch on the image, passed to the decoder as skip connections.

Patch embeddings of 8 or 16 pixels lose the fine edges that dense prediction needs; a parallel
convolutional branch restores them (Prithvi-CAFE, arXiv 2601.02315). It is independent of the
method, so that methods compare fairly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotune.types import Tap

STRIDES = (1, 2, 4)


class Stem(nn.Module):
    """Maps at strides 1, 2 and 4 with `width`, 2 `width` and 4 `width` channels."""

    recomputable = ("levels",)

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        widths = [width * stride for stride in STRIDES]
        self.taps = tuple(
            Tap(f"stem{stride}", channels, float(stride))
            for stride, channels in zip(STRIDES, widths, strict=True)
        )
        inputs = [bands, *widths[:-1]]
        self.levels = nn.ModuleList(
            nn.Sequential(
                conv_bn_relu(inputs[i], widths[i], stride=1 if i == 0 else 2),
                conv_bn_relu(widths[i], widths[i]),
            )
            for i in range(len(STRIDES))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`(B, C, H, W)` to `(B, w, H, W)`, `(B, 2w, H/2, W/2)` and `(B, 4w, H/4, W/4)`.

        Uses the channels-last memory format, which is faster and is that of a ViT's maps anyway.
        """
        maps = []
        x = images.contiguous(memory_format=torch.channels_last)
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return tuple(maps)


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU; `stride` 2 halves each side, rounding up."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
