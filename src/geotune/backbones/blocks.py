"""The structure of a backbone's blocks, and conversions between images, tiles, tokens and maps.

A transformer block adds two terms to its residual stream:

    before --> + attention --> middle --> + MLP --> after

`attention` and `mlp` are the modules whose outputs are added, possibly scaled or normalised.
`middle` is the module that receives the stream between them: the second normalisation, or the MLP
itself in blocks that normalise after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.config.backbone_options import Combine
from geotune.errors import GeotuneError

_ATTENTION = ("attn", "attention", "self_attn")
_MLP = ("mlp", "ffn", "feed_forward")
_SECOND_NORM = ("norm2", "ln2", "ln_2")
_POST_NORM = (
    "SwinTransformerV2Block",
    "SwinTransformerBlockV2",
    "ResPostBlock",
    "EvaBlockPostNorm",
)
"""Block classes that normalise the outputs of attention and MLP."""


@dataclass(frozen=True)
class BlockParts:
    """Names of submodules of a block; None if it has no such part."""

    attention: str | None = None
    mlp: str | None = None
    middle: str | None = None


@dataclass(frozen=True)
class TokenLayout:
    """Order of a plain ViT's tokens `(B, N, C)`: prefix, spatial tokens, suffix.

    Attributes:
        prefix: number of class and register tokens at the front.
        order: of spatial tokens if each location has several (dates, groups of bands):
            `location_last` has all locations of the first date or group, then those of the next;
            `location_first` has all tokens of the first location, then those of the next.
    """

    prefix: int = 0
    order: Literal["location_last", "location_first"] = "location_last"


def find_block_parts(block: nn.Module) -> BlockParts:
    """Find attention, MLP and middle of a block by their usual names in vision models."""

    def first_of(names: Iterable[str]) -> str | None:
        return next((n for n in names if isinstance(getattr(block, n, None), nn.Module)), None)

    if isinstance(block, nn.ModuleList) and len(block) == 2:  # attention and MLP
        return BlockParts("0", "1", "1")
    attention, mlp = first_of(_ATTENTION), first_of(_MLP)
    middle = mlp if type(block).__name__ in _POST_NORM else first_of(_SECOND_NORM)
    return BlockParts(attention, mlp, middle if attention and mlp else None)


def after_class_token(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens `(B, 1 + rows * columns, D)` as a map `(B, D, rows, columns)`."""
    return x[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, *grid)


@dataclass(frozen=True)
class TokensToMaps:
    """A block's activations as maps.

    Attributes:
        maps: `(B per_location, C, h, w)`, those of one image contiguous.
        restore: converts changed maps to activations again; tokens without a location keep their
            values.
        per_location: tokens of each location.
    """

    maps: Tensor
    restore: Callable[[Tensor], Tensor]
    per_location: int = 1

    @property
    def mean(self) -> Tensor:
        """Mean over the tokens of each location, `(B, C, h, w)`."""
        if self.per_location == 1:
            return self.maps
        return self.maps.reshape(-1, self.per_location, *self.maps.shape[1:]).mean(1)


def tokens_to_maps(
    x: Tensor, layout: TokenLayout | None, grid: tuple[int, int], *, channels_last: bool
) -> TokensToMaps | None:
    """Convert a block's activations to maps of `grid` rows and columns.

    4-D activations are `(B, h, w, C)` if `channels_last`, else `(B, C, h, w)`. Returns None if
    tokens have no spatial location.
    """
    rows, columns = grid
    if x.ndim == 4:
        if not channels_last:
            return TokensToMaps(x, lambda maps: maps)
        return TokensToMaps(x.permute(0, 3, 1, 2), lambda maps: maps.permute(0, 2, 3, 1))
    locations = rows * columns
    if layout is None or x.ndim != 3 or x.shape[1] < locations:
        return None
    # some models append their class token after the first blocks
    first = min(layout.prefix, x.shape[1] - locations)
    per_location = (x.shape[1] - first) // locations
    last = first + per_location * locations
    location_last = layout.order == "location_last"
    spatial = x[:, first:last]
    if not location_last:
        spatial = spatial.reshape(x.shape[0], locations, per_location, -1).transpose(1, 2)
    spatial = spatial.reshape(x.shape[0] * per_location, rows, columns, -1)

    def restore(maps: Tensor) -> Tensor:
        changed = maps.permute(0, 2, 3, 1).reshape(x.shape[0], per_location, locations, -1)
        if not location_last:
            changed = changed.transpose(1, 2)
        changed = changed.reshape(x.shape[0], per_location * locations, -1)
        if first == 0 and last == x.shape[1]:
            return changed
        return torch.cat(
            [x[:, :first].to(changed.dtype), changed, x[:, last:].to(changed.dtype)], 1
        )

    return TokensToMaps(spatial.permute(0, 3, 1, 2), restore, per_location)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad images `(B, C, [T,] H, W)` at the right and bottom by repeating the edge."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return images
    padding = (0, right, 0, below) + (0, 0) * (images.ndim - 4)
    return F.pad(images, padding, mode="replicate")


def to_tiles(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut images `(B, ..., H, W)` into `grid` rows and columns: `(B rows columns, ..., h, w)`."""
    if grid == (1, 1):
        return images
    rows = torch.stack(images.chunk(grid[0], -2), 1)
    tiles = torch.stack(rows.chunk(grid[1], -1), 2)
    return tiles.flatten(0, 2)


def from_tiles(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Join maps of tiles `(B rows columns, C, h, w)` to `(B, C, rows h, columns w)`."""
    if grid == (1, 1):
        return maps
    channels, height, width = maps.shape[1:]
    tiles = maps.reshape(-1, *grid, channels, height, width)
    whole = tiles.permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(-1, channels, grid[0] * height, grid[1] * width)


def combine_dates(feature: Tensor, rule: Combine) -> Tensor:
    """Combine maps of several dates `(B, C, T, h, w)` to one `(B, C, h, w)`.

    `mean`, `max` or `last` over dates, or `concat` to `(B, C T, h, w)`.
    """
    if feature.ndim == 4:
        return feature
    if rule == "concat":
        return feature.flatten(1, 2)
    if rule == "last":
        return feature[:, :, -1]
    return feature.mean(2) if rule == "mean" else feature.amax(2)


def no_spatial_tokens_error(backbone: str, method: str) -> GeotuneError:
    """The error for a method that needs the spatial location of tokens inside the blocks."""
    return GeotuneError(
        f"{method} on {backbone}: tokens inside its blocks have no spatial location; choose lora, "
        "adapter or est",
        code="method-unsupported",
        key="method.kind",
    )
