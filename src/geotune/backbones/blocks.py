"""What methods need to know of a block's inside, and how its tensors become maps and back.

In the residual stream of a transformer's block there are three places:

    before --> + attention --> middle --> + MLP --> after

`attention` and `mlp` are the modules whose outputs are added (with what scales or normalises them
on the way), and `middle` is the module that sees the stream between the two: the second
normalisation, or the MLP itself where the normalisation comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

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
"""Blocks that normalise what they add, so that their MLP sees the stream itself."""


@dataclass(frozen=True)
class BlockParts:
    """Names of a block's parts, relative to the block; None where it has no such part."""

    attention: str | None = None
    mlp: str | None = None
    middle: str | None = None


@dataclass(frozen=True)
class Tokens:
    """How a plain ViT's tokens `(B, N, C)` lie: prefix, those with a place, suffix.

    Attributes:
        prefix: class and register tokens in front.
        order: of tokens with a place, where one place has several of them (dates, groups of
            bands): all places of the first one together, or all tokens of a place together.
    """

    prefix: int = 0
    order: Literal["places together", "tokens of a place together"] = "places together"


def find_parts(block: nn.Module) -> BlockParts:
    """Attention, MLP and middle of a block, by the names that vision models give them."""

    def named(names: Iterable[str]) -> str | None:
        return next((n for n in names if isinstance(getattr(block, n, None), nn.Module)), None)

    if isinstance(block, nn.ModuleList) and len(block) == 2:  # attention and MLP in a row
        return BlockParts("0", "1", "1")
    attention, mlp = named(_ATTENTION), named(_MLP)
    middle = named(_SECOND_NORM)
    if type(block).__name__ in _POST_NORM:
        middle = mlp
    return BlockParts(attention, mlp, middle if attention and mlp else None)


@dataclass(frozen=True)
class TokensToMaps:
    """A tensor of a block's stream as maps `(B kinds, C, h, w)`, those of one image in a row.

    `back` puts changed maps in the place of the old; tokens without a place stay as they are.
    """

    maps: Tensor
    back: Callable[[Tensor], Tensor]
    kinds: int = 1

    @property
    def mean(self) -> Tensor:
        """One map `(B, C, h, w)` for each image: the mean over its dates and groups of bands."""
        if self.kinds == 1:
            return self.maps
        return self.maps.reshape(-1, self.kinds, *self.maps.shape[1:]).mean(1)


def tokens_to_maps(
    x: Tensor, tokens: Tokens | None, grid: tuple[int, int], *, channels_last: bool
) -> TokensToMaps | None:
    """A block's stream as maps of `grid` rows and columns; None where tokens have no place.

    A stream of four dimensions is `(B, h, w, C)` if `channels_last`, else `(B, C, h, w)`.
    """
    rows, columns = grid
    if x.ndim == 4:
        if not channels_last:
            return TokensToMaps(x, lambda maps: maps)
        return TokensToMaps(x.permute(0, 3, 1, 2), lambda maps: maps.permute(0, 2, 3, 1))
    places = rows * columns
    if tokens is None or x.ndim != 3 or x.shape[1] < places:
        return None
    first = min(tokens.prefix, x.shape[1] - places)  # some bring their class token in late
    kinds = (x.shape[1] - first) // places
    last = first + kinds * places
    placed = x[:, first:last]
    together = tokens.order == "places together"
    if together:
        placed = placed.reshape(len(x) * kinds, rows, columns, -1)
    else:
        placed = placed.reshape(len(x), places, kinds, -1).transpose(1, 2)
        placed = placed.reshape(len(x) * kinds, rows, columns, -1)

    def back(maps: Tensor) -> Tensor:
        changed = maps.permute(0, 2, 3, 1).reshape(len(x), kinds, places, -1)
        if not together:
            changed = changed.transpose(1, 2)
        changed = changed.reshape(len(x), kinds * places, -1)
        if first == 0 and last == x.shape[1]:
            return changed
        return _replace(x, changed, first, last)

    return TokensToMaps(placed.permute(0, 3, 1, 2), back, kinds)


def _replace(x: Tensor, changed: Tensor, first: int, last: int) -> Tensor:
    import torch

    return torch.cat([x[:, :first].to(changed.dtype), changed, x[:, last:].to(changed.dtype)], 1)


def no_spatial_tokens_error(backbone: str, method: str) -> GeotuneError:
    """The error where the tokens inside the blocks cannot be told a place in the image."""
    return GeotuneError(
        f"{method} on {backbone}: the tokens inside its blocks have no place in the image; "
        "choose lora, adapter or est"
    )
