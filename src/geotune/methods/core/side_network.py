"""What networks beside a backbone share: their way from tap to tap, and their norm."""

from __future__ import annotations

from torch import Tensor, nn

from geotune.backbones.base import Backbone, from_tiles
from geotune.errors import GeotuneError
from geotune.types import Tap


def require_channels_left(backbone: Backbone, reduction: int) -> None:
    """Raise `GeotuneError` for a reduction that leaves no channel of a tap."""
    narrowest = min(tap.channels for tap in backbone.taps)
    if reduction > narrowest:
        raise GeotuneError(
            f"method.reduction {reduction}: {backbone.name} has taps of {narrowest} channels; "
            f"choose at most {narrowest}"
        )


def require_odd(key: str, value: int) -> None:
    """Raise `GeotuneError` for a kernel without a middle."""
    if value % 2 == 0:
        raise GeotuneError(f"method.{key} {value}: expected an odd number")


def default_spacing(depth: int) -> int:
    """Every how many blocks a backbone of this depth is tapped."""
    return 1 if depth <= 12 else 2 if depth <= 24 else 3


def select_blocks(backbone: Backbone, levels: list[int], every: int | None) -> tuple[int, ...]:
    """Every n-th block counted back from the last of each stage, and every level."""
    step = every or default_spacing(len(backbone.taps))
    chosen = set(levels)
    for stage in backbone.stages:
        chosen |= set(stage[::-1][::step])
    return tuple(sorted(chosen))


def downsample(
    before: Tap, after: Tap, width_before: int, width_after: int, *, bias: bool = True
) -> nn.Module:
    """From one tap's stream to the next: a strided depthwise and a 1x1 between stages.

    `(B, width_before, h, w)` at the stride of `before` to `(B, width_after, h', w')` at that of
    `after`. Without `bias` it takes zero to zero.
    """
    if before.stride == after.stride and width_before == width_after:
        return nn.Identity()
    factor = round(after.stride / before.stride)
    return nn.Sequential(
        strided(width_before, width_before, factor, groups=width_before, bias=bias),
        nn.Conv2d(width_before, width_after, 1, bias=bias),
    )


def strided(
    inputs: int, outputs: int, factor: int, *, groups: int = 1, bias: bool = True
) -> nn.Conv2d:
    """A convolution from `(B, C, h, w)` to `(B, C', h / factor, w / factor)` that misses no pixel.

    Of 3x3 where it halves the map, else as large as its stride.
    """
    kernel = 3 if factor == 2 else factor
    return nn.Conv2d(
        inputs, outputs, kernel, stride=factor, padding=kernel - factor, groups=groups, bias=bias
    )


def as_feature(maps: Tensor, feature: Tensor) -> Tensor:
    """Maps of a block's stream, `(B tiles, C, h, w)`, in the shape of its tap's map.

    Tiles are put side by side again; where the tap holds the maps of several dates side by side,
    each date gets the same.
    """
    grid = feature.shape[-2] // maps.shape[-2], feature.shape[-1] // maps.shape[-1]
    whole = from_tiles(maps, grid)
    return whole.repeat_interleave(feature.shape[1] // whole.shape[1], 1)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a map `(B, C, h, w)`."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
