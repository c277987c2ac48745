"""Feature pyramid network of the detectors (arXiv 1612.03144).

taps -> pyramid (pyramid.py) -- levels below `min_stride` --.  downsampled by strided convolutions
             |                                              |
             '-- levels from `min_stride` on --------- concatenated -- top-down --> maps
                                                                          |
                                 extra levels, each by a strided convolution of the previous one
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn

from geotune.decoders.base import resize, spatial_size
from geotune.decoders.pyramid import SAME_LEVEL, Pyramid
from geotune.types import Tap


class FeaturePyramid(nn.Module):
    """Maps of equal width, fine to coarse.

    Attributes:
        strides: stride of each level, in image pixels.
        num_encoder_levels: number of levels, from the finest, that come from the encoder; the
            others are computed from the last of these.
    """

    strides: tuple[float, ...]
    num_encoder_levels: int

    def __init__(
        self, taps: Sequence[Tap], channels: int, min_stride: float, num_levels: int
    ) -> None:
        """Build the levels.

        `min_stride`: stride of the finest level, or the next larger stride available.
        `num_levels`: minimum number of levels; all levels of the encoder are used.
        """
        super().__init__()
        self.pyramid = Pyramid(taps)
        levels = self.pyramid.taps
        fine = sum(tap.stride * SAME_LEVEL <= min_stride for tap in levels)
        self._fine = fine = min(fine, len(levels) - 1)
        base, *coarse = levels[fine:]
        self.reduce = nn.ModuleList(
            _PatchDownsample(tap.channels, channels, round(base.stride / tap.stride))
            for tap in levels[:fine]
        )
        inputs = [base.channels + fine * channels, *(tap.channels for tap in coarse)]
        self.top_down = torchvision.ops.FeaturePyramidNetwork(inputs, channels)
        strides = [tap.stride for tap in levels[fine:]]
        self.num_encoder_levels = len(strides)
        num_extra = num_levels - self.num_encoder_levels
        strides += [strides[-1] * 2**i for i in range(1, num_extra + 1)]
        self.strides = tuple(strides)
        self.further = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(num_extra)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(B, C_i, H_i, W_i)`, one per tap, to `(B, channels, h, w)`, one per level."""
        scaled = self.pyramid(maps)
        base, *coarse = scaled[self._fine :]
        finer = [
            resize(reduce(x), spatial_size(base))
            for reduce, x in zip(self.reduce, scaled[: self._fine], strict=True)
        ]
        joined = torch.cat([base, *finer], dim=1) if finer else base
        named = {str(i): x for i, x in enumerate([joined, *coarse])}
        levels: list[Tensor] = list(self.top_down(named).values())
        for i, convolution in enumerate(self.further):
            levels.append(convolution(F.relu(levels[-1]) if i else levels[-1]))
        return levels


class _PatchDownsample(nn.Module):
    """Downsampling by `factor` with a convolution of non-overlapping patches."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convolution = nn.Conv2d(inputs, outputs, factor, stride=factor)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, D, H / factor, W / factor)`, rounded up."""
        height, width = spatial_size(x)
        x = F.pad(x, (0, -width % self.factor, 0, -height % self.factor), mode="replicate")
        reduced: Tensor = self.convolution(x)
        return reduced
