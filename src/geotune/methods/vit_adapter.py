r"""ViT-Adapter (arXiv 2205.08534): a convolutional prior of the image exchanges features with a
plain ViT, and both yield a pyramid.

    image --> prior --> c1                                       stride P/4
                    \-> c = [c2, c3, c4] + level embeddings      strides P/2, P, 2P, as tokens
    for each group of blocks:
        x = x + gamma MSDA(LN(x), LN(c))    injector, before the group; gamma starts at zero
        x = blocks(x)
        c = c + MSDA(LN(c), LN(x))          extractor
        c = c + FFN(LN(c))                  linear, depthwise 3x3 on each map, GELU, linear
    after the last group two more extractors, then
        f1 = BN(up(c2) + c1 + x_1),  f_l = BN(c_l + x_l)    x_l: the ViT's maps, resampled

MSDA(queries, maps) is deformable attention (`core/deformable_attention.py`). The paper also trains
the backbone (`train_backbone`); here it is frozen by default, and gradients cross it.

Choices of ours, for ViTs other than the paper's: strides follow the patch size P (16 in the paper),
without those below one pixel; if P is no power of two, the prior reads the image resampled so that
it is. Only spatial tokens take part. Several tokens at one position (dates, groups of bands) are
injected with the same prior, and the extractors read their mean, as the tap does. The last x is
taken after the backbone's final norm. The number of interactions is at most that of blocks. No
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

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import TokensToMaps, from_tiles, to_tiles
from geotune.config.method_options import VitAdapterOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.deformable_attention import DeformableAttention, Size, reference_points
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable, freeze_dead_parameters
from geotune.methods.core.injection import (
    ModuleWrapper,
    block_widths,
    freeze,
    replace_module,
    require_plain_vit,
    require_spatial_tokens,
)
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.stem import conv_bn_relu
from geotune.methods.core.stride_resize import pyramid_scales
from geotune.types import Tap

HEAD_COUNTS = (16, 12, 8, 6, 4, 3, 2)
MIN_HEAD_DIM = 32
"""Minimum width of default heads; gives those of the paper for ViT-B and ViT-L."""


class VitAdapter(VitAdapterOptions, Method):
    """A convolutional prior exchanges features with a plain ViT and yields a pyramid."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_plain_vit(backbone, "vit_adapter")
        require_spatial_tokens(backbone, "vit_adapter")
        channels = block_widths(backbone)[0]
        inner = max(1, int(channels * self.ratio))
        heads = self.num_heads or default_num_heads(inner)
        if inner % heads:
            allowed = ", ".join(str(h) for h in range(1, inner + 1) if inner % h == 0)
            raise option_error(
                "num_heads",
                heads,
                f"does not divide the {inner} channels of the attention values (method.ratio "
                f"{self.ratio:g} of {channels} of {backbone.name}); choose one of {allowed}",
            )
        if not self.train_backbone:
            freeze(backbone)
        elif not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise GeotuneError(
                f"vit_adapter on {backbone.name}: method.train_backbone is true, but another "
                "method has frozen this backbone; build it again",
                code="backbone-already-adapted",
                key="method.train_backbone",
            )
        reader = VitAdapterReader(
            backbone,
            interactions=self.interactions,
            conv_inplane=self.conv_inplane,
            hidden=max(1, int(channels * self.cffn_ratio)),
            extra=2 if self.extra_extractors else 0,
            attention={"inner": inner, "heads": heads, "points": self.points},
        )
        for group, index in enumerate(reader.first_blocks):
            block = backbone.blocks[index]
            replace_module(backbone, block, InjectedBlock(block, backbone, index, reader, group))
        encoder = Encoder(
            backbone, reader, self, backbone_frozen=False, backbone_trains=self.train_backbone
        )
        if self.train_backbone:
            freeze_dead_parameters(encoder, "backbone.")
        return check_trainable(encoder)


def default_num_heads(inner: int) -> int:
    """Return the largest usual number of heads that divides `inner` into wide enough heads."""
    return next((h for h in HEAD_COUNTS if inner % h == 0 and inner // h >= MIN_HEAD_DIM), 1)


class InjectedBlock(ModuleWrapper):
    """The first block of a group: the prior is injected into its input."""

    has_side_effects = True

    def __init__(
        self, inner: nn.Module, backbone: Backbone, index: int, reader: VitAdapterReader, group: int
    ) -> None:
        super().__init__(inner)
        self.index, self.group = index, group
        self._owners = [(backbone, reader)]  # in a list: no submodules

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """Same inputs and shapes as the wrapped block."""
        backbone, reader = self._owners[0]
        if reader.pass_state is not None:  # otherwise the backbone runs without the encoder
            tokens = backbone.tokens_to_maps(self.index, x)
            x = tokens.restore(reader.inject_prior(self.group, tokens))
        out: Tensor = self.inner(x, *inputs, **named)
        return out


@dataclass
class _PassState:
    """State of one forward pass, shared by the reader and the wrapped blocks.

    Attributes:
        c: tokens `(B, M, C)` of the prior's maps at strides P/2, P and 2P, in that order.
        sizes: of those maps.
        c_points, x_points: reference points `(M, 2)` and `(N, 2)` of their tokens and the ViT's.
        grid: size of the ViT's map.
    """

    c: Tensor
    sizes: list[Size]
    c_points: Tensor
    x_points: Tensor
    grid: Size


class VitAdapterReader(Reader):
    """Prior, injectors and extractors, and the pyramid that they yield.

    Attributes:
        first_blocks: index of the first block of each group.
        pass_state: set during a forward pass; None otherwise.
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
        channels, self.patch = block_widths(backbone)[0], backbone.taps[0].stride
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
        self.pass_state: _PassState | None = None

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. The state is the prior's map at P/4, if any, and the ViT's maps."""
        grid = (round(images.shape[-2] / self.patch), round(images.shape[-1] / self.patch))
        maps = self.prior(images.flatten(1, -3), grid)
        fine = None if self.up is None else maps.pop(0)
        sizes = [(m.shape[-2], m.shape[-1]) for m in maps]
        tokens = [to_tokens(m) + e for m, e in zip(maps, self.level_embedding, strict=True)]
        self.pass_state = _PassState(
            torch.cat(tokens, 1),
            sizes,
            torch.cat([reference_points(size, images.device) for size in sizes]),
            reference_points(grid, images.device),
            grid,
        )
        return fine, []

    def reset(self) -> None:
        """See `Reader.reset`."""
        self.pass_state = None

    def inject_prior(self, group: int, tokens: TokensToMaps) -> Tensor:
        """Inject the prior into the input of a group; returns the shape of `tokens.maps`."""
        assert self.pass_state is not None
        state, (height, width) = self.pass_state, tokens.maps.shape[-2:]
        tokens_per_location = tokens.per_location
        # if the model runs on tiles, inject the prior of the whole image
        tiles = (state.grid[0] // height, state.grid[1] // width)
        joined = from_tiles(
            tokens.maps.reshape(-1, tokens_per_location * self.channels, height, width), tiles
        )
        x = joined.reshape(len(joined), tokens_per_location, self.channels, -1).transpose(2, 3)
        # (B, tokens_per_location, N, C)
        x = self.injectors[group](state, x.flatten(1, 2)).reshape(x.shape)
        changed = x.transpose(2, 3).reshape(joined.shape)
        return to_tiles(changed, tiles).reshape(tokens.maps.shape)

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        assert self.pass_state is not None
        fine, maps = state
        if feature.shape[1] > self.channels:  # the tap concatenates the channels of all dates
            dates = feature.shape[1] // self.channels
            feature = feature.reshape(-1, self.channels, dates, *feature.shape[2:]).mean(2)
        group, last = self.out_indices.index(index), index == self.out_indices[-1]
        x = to_tokens(feature)
        for extractor in self.extractors[group : None if last else group + 1]:
            self.pass_state.c = extractor(self.pass_state, x)
        return fine, [*maps, feature]

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        assert self.pass_state is not None
        fine, maps = state
        levels = to_maps(self.pass_state.c, self.pass_state.sizes)
        self.pass_state = None
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

    def forward(self, state: _PassState, x: Tensor) -> Tensor:
        """Tokens `(B, tokens_per_location * N, C)` to the same shape."""
        points = state.x_points.repeat(x.shape[1] // len(state.x_points), 1)
        change = self.attention(self.norm_x(x), points, self.norm_c(state.c), state.sizes)
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

    def forward(self, state: _PassState, x: Tensor) -> Tensor:
        """The ViT's tokens `(B, N, C)` to the new c, `(B, M, C)`."""
        c = state.c
        c = c + self.attention(self.norm_c(c), state.c_points, self.norm_x(x), [state.grid])
        maps = to_maps(self.widen(self.norm(c)), state.sizes)
        h = torch.cat([to_tokens(self.depthwise(m)) for m in maps], 1)
        out: Tensor = c + self.narrow(F.gelu(h))
        return out


class SpatialPrior(nn.Module):
    """Convolutions from the image to maps of `channels` channels at strides patch / scale.

    Widths of the stages are `width` and 2, 4 and 4 times that.
    """

    recomputable = ("stages",)

    def __init__(
        self, bands: int, width: int, channels: int, patch: float, scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.pixels = 2 ** math.ceil(math.log2(patch))  # side of a patch after resampling
        halvings = round(math.log2(self.pixels / scales[0]))
        stem: list[nn.Module] = [
            conv_bn_relu(bands, width, 2 if halvings else 1),
            conv_bn_relu(width, width),
            conv_bn_relu(width, width),
        ]
        if halvings > 1:
            stem.append(nn.MaxPool2d(3, 2, 1))
        stem += [conv_bn_relu(width, width, 2) for _ in range(halvings - 2)]
        widths = [width, 2 * width, 4 * width, 4 * width][: len(scales)]
        self.stages = nn.ModuleList(
            [nn.Sequential(*stem), *(conv_bn_relu(a, b, 2) for a, b in pairwise(widths))]
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
    """Map `(B, C, h, w)` to tokens `(B, h w, C)`."""
    return feature.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Tokens `(B, M, C)` of several maps, concatenated, to those maps `(B, C, h, w)`."""
    by_map = torch.split(tokens, [height * width for height, width in sizes], 1)
    return [
        part.transpose(1, 2).reshape(len(part), -1, *size)
        for part, size in zip(by_map, sizes, strict=True)
    ]
