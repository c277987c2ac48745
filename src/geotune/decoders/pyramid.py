"""Build a feature pyramid from the maps of any encoder.

A plain ViT outputs maps of a single stride P. As in BEiT (arXiv 2106.08254, its segmentation code),
ViTDet (arXiv 2203.16527) and TerraTorch's `LearnedInterpolateToPyramidal`, they are rescaled to
strides P/4, P/2, P and 2P:

    first  map  (P) -- 2x2 up, norm, GELU -- 2x2 up -->  P/4, C/4 channels
    second map  (P) -- 2x2 up ------------------------>  P/2, C/2
    third  map  (P) ---------------------------------->  P,   C
    fourth map  (P) -- 2x2 max-pool ------------------>  2P,  C

where "2x2 up" is a learned transposed convolution. With fewer maps than levels, levels share maps;
with more, neighbouring maps are concatenated. No level is finer than the image.
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
"""Maps whose stride ratio is below this, half an octave, share a level."""


def is_stem(tap: Tap) -> bool:
    """Whether a tap belongs to the convolutional stem, by its name."""
    return tap.name.startswith("stem")


def selected_taps(taps: Sequence[Tap], levels: str) -> list[int]:
    """Indices of the taps that a decoder with the option `levels` reads: all, or the last.

    Raises `ValueError` without any.
    """
    body = [i for i, tap in enumerate(taps) if not is_stem(tap)]
    indices = list(range(len(taps))) if levels == "all" else body[-1:]
    if not indices:
        raise ValueError("a decoder needs at least one tap, found none")
    return indices


class Pyramid(nn.Module):
    """Converts maps to levels of strictly increasing stride.

    If all maps but the stem's have the same stride, they are rescaled to a pyramid; otherwise they
    are unchanged, as are stem maps. Maps that share a level are concatenated along channels, at the
    size of the finest of them.

    Attributes:
        taps: the levels, fine to coarse.
    """

    taps: tuple[Tap, ...]

    def __init__(self, taps: Sequence[Tap]) -> None:
        """Create the levels. Raises `ValueError` for an empty tap list."""
        super().__init__()
        if not taps:
            raise ValueError("a pyramid needs at least one tap, found none")
        body = [i for i, tap in enumerate(taps) if not is_stem(tap)]
        single_stride = len({taps[i].stride for i in body}) == 1
        sources: list[tuple[int, ...]] = [
            (i,) for i, tap in enumerate(taps) if not single_stride or is_stem(tap)
        ]
        scaled = [taps[source[0]] for source in sources]
        steps: list[nn.Module] = [nn.Identity() for _ in scaled]
        if single_stride:
            stride = taps[body[0]].stride
            scales = [scale for scale in SCALES if stride * scale >= 1]
            for scale, shared in zip(scales, _distribute(body, len(scales)), strict=True):
                step, channels = _rescale([taps[i].channels for i in shared], scale)
                name = "+".join(taps[i].name for i in shared) + f"@{stride * scale:g}"
                sources.append(shared)
                scaled.append(Tap(name, channels, stride * scale))
                steps.append(step)
        self.steps = nn.ModuleList(steps)
        self._sources = sources
        self._levels = _group_by_level([tap.stride for tap in scaled])
        self.taps = tuple(_concatenated_tap([scaled[i] for i in level]) for level in self._levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(B, C_i, H_i, W_i)`, one per input tap, to one per tap of `self.taps`."""
        scaled = [
            step(_concatenate([maps[i] for i in source]))
            for step, source in zip(self.steps, self._sources, strict=True)
        ]
        return [_concatenate([scaled[i] for i in level]) for level in self._levels]


def _distribute(maps: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """The maps of each level, first block to finest level; every map is used at least once."""
    count = len(maps)
    if count < levels:
        return [(maps[round(k * (count - 1) / max(levels - 1, 1))],) for k in range(levels)]
    edges = [round(k * count / levels) for k in range(levels + 1)]
    return [tuple(maps[a:b]) for a, b in pairwise(edges)]


def _rescale(channels: Sequence[int], scale: float) -> tuple[nn.Module, int]:
    """A module that multiplies the stride by `scale`, and its output channels."""
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
    # ceil_mode keeps maps of one pixel, and the last row of maps with odd sizes.
    return nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True), total


def _group_by_level(strides: Sequence[float]) -> list[list[int]]:
    """Indices of the maps of each level, fine to coarse, also within a level."""
    levels: list[list[int]] = []
    for i in sorted(range(len(strides)), key=lambda i: strides[i]):
        if levels and strides[i] / strides[levels[-1][0]] < SAME_LEVEL:
            levels[-1].append(i)
        else:
            levels.append([i])
    return levels


def _concatenated_tap(taps: Sequence[Tap]) -> Tap:
    name = "+".join(tap.name for tap in taps)
    return Tap(name, sum(tap.channels for tap in taps), taps[0].stride)


def _concatenate(maps: Sequence[Tensor]) -> Tensor:
    if len(maps) == 1:
        return maps[0]
    return torch.cat([resize(x, spatial_size(maps[0])) for x in maps], dim=1)
