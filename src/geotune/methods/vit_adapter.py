r"""ViT-Adapter (arXiv 2205.08534): a convolutional prior of the image, which a plain ViT and a
pyramid exchange features with.

    image --> prior --> c1                                       stride P/4
                    \-> c = [c2, c3, c4] + level embeddings      strides P/2, P, 2P, as tokens
    for each group of blocks:
        x = x + gamma MSDA(LN(x), LN(c))    injector, before the group; gamma starts at zero
        x = blocks(x)
        c = c + MSDA(LN(c), LN(x))          extractor
        c = c + FFN(LN(c))                  linear, depthwise 3x3 on each map, GELU, linear
    after the last group two more extractors, then
        f1 = BN(up(c2) + c1 + x_1),  f_l = BN(c_l + x_l)    x_l: the ViT's maps, resampled

MSDA is deformable attention (`methods/core/deformable_attention.py`). The paper also
trains the backbone (`train_backbone`); here it is frozen by default, and gradients cross it.

Our reading, where the paper has one kind of ViT in mind: strides follow the patch P, which is 16
there, and those finer than a pixel are left out; for a patch that is no power of two the prior
sees the image resampled so that it is one. Only tokens with a place take part. Where several
tokens share a place (dates, groups of bands), all are injected the same prior, and the extractors
see what the tap makes of them, which is their mean. The last x is taken after the backbone's final
norm. A ViT of fewer blocks than interactions has as many interactions as blocks. There is no
stochastic depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone, from_tiles, to_tiles
from geotune.backbones.blocks import TokensToMaps
from geotune.config.method_options import VitAdapterOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.deformable_attention import DeformableAttention, Size, reference_points
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable, dead_parameters
from geotune.methods.core.injection import (
    Wrapped,
    freeze,
    inject,
    require_places,
    require_plain,
    widths,
)
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.stem import convolution
from geotune.methods.core.stride_resize import pyramid_scales
from geotune.types import Tap

USUAL_HEADS = (16, 12, 8, 6, 4, 3, 2)
HEAD_WIDTH = 32
"""Heads are no narrower than this by default, which gives those of the paper's ViT-B and ViT-L."""


class VitAdapter(VitAdapterOptions, Method):
    """A convolutional prior exchanges features with a plain ViT and makes a pyramid."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a backbone that is no plain ViT, and for
        heads that do not divide the values."""
        require_plain(backbone, "vit_adapter")
        require_places(backbone, "vit_adapter")
        channels = widths(backbone)[0]
        inner = max(1, int(channels * self.ratio))
        heads = self.num_heads or default_num_heads(inner)
        if inner % heads:
            allowed = ", ".join(str(h) for h in range(1, inner + 1) if inner % h == 0)
            raise GeotuneError(
                f"method.num_heads {heads}: does not divide the {inner} channels of the values "
                f"(method.ratio {self.ratio:g} of the {channels} of {backbone.name}); choose "
                f"one of {allowed}"
            )
        if not self.train_backbone:
            freeze(backbone)
        elif not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise GeotuneError(
                f"vit_adapter on {backbone.name}: another method has frozen this backbone, and "
                "method.train_backbone is true; build it anew"
            )
        reader = Interaction(
            backbone,
            interactions=self.interactions,
            conv_inplane=self.conv_inplane,
            hidden=max(1, int(channels * self.cffn_ratio)),
            extra=2 if self.extra_extractors else 0,
            attention={"inner": inner, "heads": heads, "points": self.points},
        )
        for at, index in enumerate(reader.first_blocks):
            block = backbone.blocks[index]
            inject(backbone, block, Injected(block, backbone, index, reader, at))
        encoder = Encoder(
            backbone,
            reader,
            self,
            backbone_frozen=False,
            backbone_trains=self.train_backbone,
        )
        if self.train_backbone:
            parameters = dict(encoder.named_parameters())
            for name in dead_parameters(encoder):
                if name.startswith("backbone."):  # what no output depends on
                    parameters[name].requires_grad_(False)
        return check_trainable(encoder)


def default_num_heads(inner: int) -> int:
    """The most heads that divide the values' width and are wide enough."""
    return next((h for h in USUAL_HEADS if inner % h == 0 and inner // h >= HEAD_WIDTH), 1)


class Injected(Wrapped):
    """The first block of a group: the prior is injected into the stream that it gets."""

    carries = True

    def __init__(
        self, inner: nn.Module, backbone: Backbone, index: int, reader: Interaction, at: int
    ) -> None:
        super().__init__(inner)
        self.index, self.at = index, at
        self._owners = [(backbone, reader)]  # not a second owner of either

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """As the block inside."""
        backbone, reader = self._owners[0]
        if reader.now is not None:  # else the backbone runs by itself
            found = backbone.tokens_to_maps(self.index, x)
            x = found.restore(reader.inject(self.at, found))
        out: Tensor = self.inner(x, *inputs, **named)
        return out


@dataclass
class _Pass:
    """What the reader holds during one forward pass.

    Attributes:
        c: the tokens `(B, M, C)` of the maps at strides P/2, P and 2P, in that order.
        sizes: of those maps.
        c_places, x_places: where their tokens lie, and those of the ViT.
        grid: the size of the ViT's map.
    """

    c: Tensor
    sizes: list[Size]
    c_places: Tensor
    x_places: Tensor
    grid: Size


class Interaction(Reader):
    """Prior, injectors and extractors, and the pyramid that they make.

    Attributes:
        first_blocks: the first block of each group.
        now: what is held during a forward pass; None otherwise.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        interactions: int,
        conv_inplane: int,
        hidden: int,
        extra: int,
        attention: dict[str, int],
    ) -> None:
        super().__init__()
        channels, self.patch = widths(backbone)[0], backbone.taps[0].stride
        self.channels = channels
        self.out_indices = tuple(level_indices(backbone, interactions))
        self.first_blocks = (0, *(index + 1 for index in self.out_indices[:-1]))
        scales = pyramid_scales(self.patch)
        levels = sum(scale <= 2 for scale in scales)

        bands = len(backbone.bands) * backbone.timesteps
        self.prior = SpatialPrior(bands, conv_inplane, channels, self.patch, scales)
        self.level_embedding = nn.Parameter(torch.randn(levels, channels))
        self.injectors = nn.ModuleList(
            Injector(channels, levels=levels, **attention) for _ in self.out_indices
        )
        self.extractors = nn.ModuleList(
            Extractor(channels, hidden, **attention) for _ in range(len(self.out_indices) + extra)
        )
        up = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
        self.up = up if levels < len(scales) else None
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in scales)
        self.taps: tuple[Tap, ...] = tuple(
            Tap(f"vit_adapter{i + 1}", channels, self.patch / scale)
            for i, scale in enumerate(scales)
        )
        self.now: _Pass | None = None

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. The state is the prior's map at P/4, where there is one, and the
        ViT's maps so far."""
        grid = (round(images.shape[-2] / self.patch), round(images.shape[-1] / self.patch))
        maps = self.prior(images.flatten(1, -3), grid)
        fine = None if self.up is None else maps.pop(0)
        sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
        tokens = [to_tokens(m) + e for m, e in zip(maps, self.level_embedding, strict=True)]
        self.now = _Pass(
            torch.cat(tokens, 1),
            sizes,
            torch.cat([reference_points(size, images.device) for size in sizes]),
            reference_points(grid, images.device),
            grid,
        )
        return fine, []

    def inject(self, at: int, found: TokensToMaps) -> Tensor:
        """What the group `at` gets, with the prior injected; of the shape of `found.maps`."""
        assert self.now is not None
        now, kinds, (height, width) = self.now, found.per_location, found.maps.shape[-2:]
        # a model that sees an image in tiles is injected the prior of the whole image
        tiles = (now.grid[0] // height, now.grid[1] // width)
        whole = from_tiles(found.maps.reshape(-1, kinds * self.channels, height, width), tiles)
        x = whole.reshape(len(whole), kinds, self.channels, -1).transpose(2, 3)  # (B, kinds, N, C)
        x = self.injectors[at](now, x.flatten(1, 2)).reshape(x.shape)
        changed = x.transpose(2, 3).reshape(whole.shape)
        return to_tiles(changed, tiles).reshape(found.maps.shape)

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        assert self.now is not None
        fine, maps = state
        if feature.shape[1] > self.channels:  # the dates' maps are side by side
            dates = feature.shape[1] // self.channels
            feature = feature.reshape(-1, self.channels, dates, *feature.shape[2:]).mean(2)
        at, last = self.out_indices.index(index), index == self.out_indices[-1]
        x = to_tokens(feature)
        for extractor in self.extractors[at : None if last else at + 1]:
            self.now.c = extractor(self.now, x)
        return fine, [*maps, feature]

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        assert self.now is not None
        fine, maps = state
        levels = to_maps(self.now.c, self.now.sizes)
        self.now = None
        if self.up is not None:
            levels = [self.up(levels[0]) + fine, *levels]
        out = []
        for i, (level, norm) in enumerate(zip(levels, self.norms, strict=True)):
            x = maps[math.ceil((i + 1) * len(maps) / len(levels)) - 1]
            x = F.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=False)
            out.append(norm(level + x))
        return tuple(out)


class Injector(nn.Module):
    """`x + gamma MSDA(LN(x), LN(c))`."""

    def __init__(self, channels: int, **attention: int) -> None:
        super().__init__()
        self.norm_x = nn.LayerNorm(channels)
        self.norm_c = nn.LayerNorm(channels)
        self.attention = DeformableAttention(channels, **attention)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, now: _Pass, x: Tensor) -> Tensor:
        """Tokens `(B, kinds N, C)` to the same shape."""
        where = now.x_places.repeat(x.shape[1] // len(now.x_places), 1)
        change = self.attention(self.norm_x(x), where, self.norm_c(now.c), now.sizes)
        out: Tensor = x + self.gamma * change
        return out


class Extractor(nn.Module):
    """`c + MSDA(LN(c), LN(x))`, then `c + FFN(LN(c))`."""

    def __init__(self, channels: int, hidden: int, **attention: int) -> None:
        super().__init__()
        self.norm_c = nn.LayerNorm(channels)
        self.norm_x = nn.LayerNorm(channels)
        self.attention = DeformableAttention(channels, levels=1, **attention)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, now: _Pass, x: Tensor) -> Tensor:
        """The new `c`, from the ViT's tokens `(B, N, C)`."""
        c = now.c
        c = c + self.attention(self.norm_c(c), now.c_places, self.norm_x(x), [now.grid])
        maps = to_maps(self.widen(self.norm(c)), now.sizes)
        h = torch.cat([to_tokens(self.depthwise(m)) for m in maps], 1)
        out: Tensor = c + self.narrow(F.gelu(h))
        return out


class SpatialPrior(nn.Module):
    """Convolutions from the image to maps of `channels` at strides patch / scale.

    Their own widths are `width` and 2, 4 and 4 times that.
    """

    recomputable = ("stages",)

    def __init__(
        self, bands: int, width: int, channels: int, patch: float, scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.pixels = 2 ** math.ceil(math.log2(patch))  # of a patch, as the convolutions see it
        halvings = round(math.log2(self.pixels / scales[0]))
        stem: list[nn.Module] = [
            convolution(bands, width, 2 if halvings else 1),
            convolution(width, width),
            convolution(width, width),
        ]
        if halvings > 1:
            stem.append(nn.MaxPool2d(3, 2, 1))
        stem += [convolution(width, width, 2) for _ in range(halvings - 2)]
        widths = [width, 2 * width, 4 * width, 4 * width][: len(scales)]
        self.stages = nn.ModuleList(
            [nn.Sequential(*stem), *(convolution(a, b, 2) for a, b in pairwise(widths))]
        )
        self.project = nn.ModuleList(nn.Conv2d(w, channels, 1, bias=False) for w in widths)

    def forward(self, images: Tensor, grid: Size) -> list[Tensor]:
        """Images `(B, bands, H, W)` of `grid` patches to maps `(B, C, h, w)`, fine to coarse."""
        size = (grid[0] * self.pixels, grid[1] * self.pixels)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        maps = []
        for stage, project in zip(self.stages, self.project, strict=True):
            images = stage(images)
            maps.append(project(images))
        return maps


def to_tokens(feature: Tensor) -> Tensor:
    """A map `(B, C, h, w)` as tokens `(B, h w, C)`."""
    return feature.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Tokens `(B, M, C)` of several maps in a row as those maps."""
    parts = torch.split(tokens, [height * width for height, width in sizes], 1)
    return [
        part.transpose(1, 2).reshape(len(part), -1, *size)
        for part, size in zip(parts, sizes, strict=True)
    ]
