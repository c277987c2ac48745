"""Stem: a narrow convolutional branch on the image, passed to the decoder as skip connections.

Patch embeddings of 8 or 16 pixels lose the fine edges that dense prediction needs; a parallel
convolutional branch restores them (Prithvi-CAFE, arXiv 2601.02315). It is independent of the
method, so that methods compare fairly.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotune.types import Tap


class Stem(nn.Module):
    """Maps at strides 1, 2 and 4 with `width / 4`, `width` and 2 `width` channels.

    Convolutions at full resolution would cost more than the rest of a side network and its decoder.
    The finest map is therefore that of stride 2 with its channels rearranged to pixels, as in
    sub-pixel convolution (arXiv 1609.05158).
    """

    recomputable = ("levels",)

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width)
        self.taps = (
            Tap("stem1", width // 4, 1.0),
            Tap("stem2", width, 2.0),
            Tap("stem4", 2 * width, 4.0),
        )
        self.levels = nn.ModuleList(
            nn.Sequential(conv_bn_relu(inputs, outputs, stride=2), conv_bn_relu(outputs, outputs))
            for inputs, outputs in pairwise((bands, *widths))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`(B, C, H, W)` to `(B, w/4, H, W)`, `(B, w, H/2, W/2)` and `(B, 2w, H/4, W/4)`.

        Uses the channels-last memory format, which is faster and is that of a ViT's maps anyway.
        """
        height, width = images.shape[-2:]
        half = self.levels[0](images.contiguous(memory_format=torch.channels_last))
        finest = functional.pixel_shuffle(half, 2)[..., :height, :width]
        return finest, half, self.levels[1](half)


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU; `stride` 2 halves each side, rounding up."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
