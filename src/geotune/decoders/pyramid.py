"""A true pyramid from whatever maps an encoder hands on.

A plain ViT offers several maps of one stride P. As in BEiT (arXiv 2106.08254, its segmentation
code) and ViTDet (arXiv 2203.16527), and as TerraTorch's `LearnedInterpolateToPyramidal` has it,
they become strides P/4, P/2, P and 2P:

    first  map  (P) -- 2x2 up, norm, GELU -- 2x2 up -->  P/4, C/4 channels
    second map  (P) -- 2x2 up ------------------------>  P/2, C/2
    third  map  (P) ---------------------------------->  P,   C
    fourth map  (P) -- 2x2 max-pool ------------------>  2P,  C

where "2x2 up" is a learned transposed convolution. Fewer maps than levels: levels share them.
More: neighbours are concatenated. No level is finer than the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geotune.decoders.base import resize, spatial_size
from geotune.types import Tap

SCALES = (0.25, 0.5, 1.0, 2.0)
SAME_LEVEL = math.sqrt(2)
"""Strides whose ratio is below this, half an octave, share a level."""


def is_stem(tap: Tap) -> bool:
    """Whether a tap belongs to the convolutional branch on the image, by its name."""
    return tap.name.startswith("stem")


class Pyramid(nn.Module):
    """Maps of any taps to maps of strictly growing stride.

    Maps of one stride are spread over a pyramid; maps of several strides stay as they are. Stem
    maps stay as they are too. Maps that then share a level are concatenated on channels, at the
    size of the finest of them.

    Attributes:
        taps: the levels, fine to coarse.
    """

    taps: tuple[Tap, ...]

    def __init__(self, taps: Sequence[Tap]) -> None:
        """Plan the levels. Raises `ValueError` for an empty tap list."""
        super().__init__()
        if not taps:
            raise ValueError("a pyramid needs at least one tap, found none")
        body = [i for i, tap in enumerate(taps) if not is_stem(tap)]
        spread = len({taps[i].stride for i in body}) == 1
        sources: list[tuple[int, ...]] = [
            (i,) for i, tap in enumerate(taps) if not spread or is_stem(tap)
        ]
        parts = [taps[source[0]] for source in sources]
        steps: list[nn.Module] = [nn.Identity() for _ in parts]
        if spread:
            stride = taps[body[0]].stride
            scales = [scale for scale in SCALES if stride * scale >= 1]
            for scale, shared in zip(scales, _share(body, len(scales)), strict=True):
                step, channels = _rescale([taps[i].channels for i in shared], scale)
                name = "+".join(taps[i].name for i in shared) + f"@{stride * scale:g}"
                sources.append(shared)
                parts.append(Tap(name, channels, stride * scale))
                steps.append(step)
        self.steps = nn.ModuleList(steps)
        self._sources = sources
        self._levels = _levels([part.stride for part in parts])
        self.taps = tuple(_joined([parts[i] for i in level]) for level in self._levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map `(B, C_i, H_i, W_i)` for each tap given, to one for each of `self.taps`."""
        parts = [
            step(_concatenate([maps[i] for i in source]))
            for step, source in zip(self.steps, self._sources, strict=True)
        ]
        return [_concatenate([parts[i] for i in level]) for level in self._levels]


def _share(maps: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """Which maps feed each level, first block to the finest; every map feeds at least one."""
    count = len(maps)
    if count < levels:
        return [(maps[round(k * (count - 1) / max(levels - 1, 1))],) for k in range(levels)]
    edges = [round(k * count / levels) for k in range(levels + 1)]
    return [tuple(maps[a:b]) for a, b in pairwise(edges)]


def _rescale(channels: Sequence[int], scale: float) -> tuple[nn.Module, int]:
    """The module that multiplies the stride by `scale`, and the channels that it gives."""
    total, width = sum(channels), channels[0]
    half, quarter = max(1, width // 2), max(1, width // 4)
    if scale == 0.25:
        up = nn.Sequential(
            nn.ConvTranspose2d(total, half, kernel_size=2, stride=2, bias=False),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2),
        )
        return up, quarter
    if scale == 0.5:
        return nn.ConvTranspose2d(total, half, kernel_size=2, stride=2), half
    if scale == 1.0:
        return nn.Identity(), total
    # ceil_mode: a map of one pixel, or the last row of an odd one, is kept.
    return nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True), total


def _levels(strides: Sequence[float]) -> list[list[int]]:
    """Indices of the parts of each level, fine to coarse; within a level the finest first."""
    levels: list[list[int]] = []
    for i in sorted(range(len(strides)), key=lambda i: strides[i]):
        if levels and strides[i] / strides[levels[-1][0]] < SAME_LEVEL:
            levels[-1].append(i)
        else:
            levels.append([i])
    return levels


def _joined(parts: Sequence[Tap]) -> Tap:
    name = "+".join(part.name for part in parts)
    return Tap(name, sum(part.channels for part in parts), parts[0].stride)


def _concatenate(maps: Sequence[Tensor]) -> Tensor:
    if len(maps) == 1:
        return maps[0]
    return torch.cat([resize(x, spatial_size(maps[0])) for x in maps], dim=1)
