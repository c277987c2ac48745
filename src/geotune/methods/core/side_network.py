"""Building blocks shared by side networks: which blocks they read, transitions, and norm."""

from __future__ import annotations

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import from_tiles
from geotune.methods.core.method_errors import option_error
from geotune.types import Tap

MIN_WIDTH = 8
"""Layer normalisation of a single channel would always return zero."""


def side_width(channels: int, reduction: int, min_width: int = MIN_WIDTH) -> int:
    """Channels beside a block of C: C / reduction, at least `min_width`, at most C."""
    return min(channels, max(channels // reduction, min_width))


def check_reduction(backbone: Backbone, reduction: int) -> None:
    """Raise `GeotuneError` if C / reduction is below one channel for some tap."""
    narrowest = min(tap.channels for tap in backbone.taps)
    if reduction > narrowest:
        problem = f"{backbone.name} has taps of {narrowest} channels; choose at most {narrowest}"
        raise option_error("reduction", reduction, problem)


def check_odd(option: str, value: int) -> None:
    """Raise `GeotuneError` for an even kernel size."""
    if value % 2 == 0:
        problem = f"expected an odd number, such as {value - 1} or {value + 1}"
        raise option_error(option, value, problem)


def default_block_stride(depth: int) -> int:
    """Return n such that a side network reads every n-th of `depth` blocks."""
    return 1 if depth <= 12 else 2 if depth <= 24 else 3


def select_blocks(
    backbone: Backbone, levels: list[int], block_stride: int | None
) -> tuple[int, ...]:
    """Select every n-th block, counted back from the last of each stage, and every level."""
    step = block_stride or default_block_stride(len(backbone.taps))
    selected = set(levels)
    for stage in backbone.stages:
        selected |= set(stage[::-1][::step])
    return tuple(sorted(selected))


def downsample(
    before: Tap, after: Tap, width_before: int, width_after: int, *, bias: bool = True
) -> nn.Module:
    """Transition of the side stream from one tap to the next.

    `(B, width_before, h, w)` at the stride of `before` to `(B, width_after, h', w')` at that of
    `after`: a strided depthwise convolution and a 1x1 between stages, else the identity. Without
    `bias` it maps zero to zero.
    """
    if before.stride == after.stride and width_before == width_after:
        return nn.Identity()
    factor = round(after.stride / before.stride)
    return nn.Sequential(
        strided_conv(width_before, width_before, factor, groups=width_before, bias=bias),
        nn.Conv2d(width_before, width_after, 1, bias=bias),
    )


def strided_conv(
    inputs: int, outputs: int, factor: int, *, groups: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Convolution from `(B, C, h, w)` to `(B, C', h / factor, w / factor)` that skips no pixel.

    The kernel is 3x3 for factor 2, else as large as the stride.
    """
    kernel = 3 if factor == 2 else factor
    return nn.Conv2d(
        inputs, outputs, kernel, stride=factor, padding=kernel - factor, groups=groups, bias=bias
    )


def match_tap_shape(maps: Tensor, feature: Tensor) -> Tensor:
    """Bring maps of a block's stream, `(B tiles, C, h, w)`, to the shape of its tap.

    Joins tiles; if the tap concatenates the channels of several dates, repeats them for each date.
    """
    grid = feature.shape[-2] // maps.shape[-2], feature.shape[-1] // maps.shape[-1]
    joined = from_tiles(maps, grid)
    return joined.repeat_interleave(feature.shape[1] // joined.shape[1], 1)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a map `(B, C, h, w)`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
