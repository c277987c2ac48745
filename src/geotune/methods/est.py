"""EST, efficient side-tuning (IEEE JSTARS 2025, doi 10.1109/JSTARS.2025.3563641).

A parallel network beside the frozen backbone is the only thing that trains; no gradient crosses
the backbone. The paper names the parts of its block (multichannel adapter fusion, a gate layer, a
depthwise convolution, for feature selection and enhancement) but not their inner dimensions; the
block below is our reading of it:

      frozen block i      z = Down(x_i)                                    1x1, C -> d
            |             g = sigmoid(W [z, s] + b)                        gate: feature selection
           x_i            h = g z + (1 - g) s
            |             h = h + sum_k w_k Up_k(GELU(Down_k(LN(h))))      widths d/2, d/4, d/8
      s --> block --> s   h = h + DWConv(h)                                enhancement
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.base import (
    Encoder,
    Inside,
    Method,
    Reader,
    freeze,
    level_indices,
    require_alive,
)
from geotune.methods.rescale import Rescale, pyramid_scales
from geotune.types import GeotuneError, Tap

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

FUSION_SHARES = (2, 4, 8)
"""The adapters of a block are d/2, d/4 and d/8 wide."""


class Est(Method):
    """Efficient side-tuning: a small network beside the frozen backbone.

    Attributes:
        reduction: the side stream is C / reduction wide, where C is the tap's width,
        min_width: but not narrower than this (nor wider than C).
        fuse: what the decoder gets. `sum`: the frozen features plus the up-projected stream, which
            starts equal to `frozen`. `side`: only the stream, with a 1x1 of the frozen features
            added; the decoder stays small.
        every: tap every n-th block of a stage; by default 1 up to 12 blocks, 2 up to 24, else 3.
        kernel_size: of the depthwise convolution.
    """

    reduction: PositiveInt = 8
    min_width: PositiveInt = 64
    fuse: Literal["sum", "side"] = "side"
    every: PositiveInt | None = None
    kernel_size: PositiveInt = 3

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a width or kernel that does not fit."""
        if self.kernel_size % 2 == 0:
            raise GeotuneError(f"method.kernel_size {self.kernel_size}: expected an odd number")
        narrowest = min(tap.channels for tap in backbone.taps)
        if self.reduction > narrowest:
            raise GeotuneError(
                f"method.reduction {self.reduction}: {backbone.name} has taps of {narrowest} "
                f"channels; choose at most {narrowest}"
            )
        freeze(backbone)
        encoder = Encoder(
            backbone,
            EstStream(
                backbone,
                reduction=self.reduction,
                min_width=self.min_width,
                fuse=self.fuse,
                every=self.every,
                kernel_size=self.kernel_size,
            ),
            stem=self.stem,
            constant_backbone=True,
        )
        return require_alive(encoder, "est")


class EstStream(Reader):
    """The side network: one block for each tap it reads, and what it hands on."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        reduction: int,
        min_width: int,
        fuse: Literal["sum", "side"],
        every: int | None,
        kernel_size: int,
    ) -> None:
        super().__init__()
        levels = level_indices(backbone)
        self.wanted = _spaced(backbone, levels, every or _default_spacing(len(backbone.taps)))
        self.levels = tuple(levels)
        self.fuse = fuse
        read = [backbone.taps[i] for i in self.wanted]
        widths = [min(tap.channels, max(tap.channels // reduction, min_width)) for tap in read]

        self.down = nn.ModuleList(
            nn.Conv2d(tap.channels, width, 1) for tap, width in zip(read, widths, strict=True)
        )
        self.blocks = nn.ModuleList(
            EstBlock(width, kernel_size, gated=i > 0) for i, width in enumerate(widths)
        )
        self.between = nn.ModuleList(
            _between(read[i - 1], read[i], widths[i - 1], widths[i]) if i else nn.Identity()
            for i in range(len(read))
        )

        tap_of = {i: (tap, width) for i, tap, width in zip(self.wanted, read, widths, strict=True)}
        scales = pyramid_scales(read[-1].stride) if backbone.plain else [1.0] * len(levels)
        if fuse == "sum":
            scales = [1.0] * len(levels)
        scales = scales[: len(levels)]  # a shallow ViT has fewer levels than a pyramid
        self.levels = self.levels[-len(scales) :]
        self.mix = nn.ModuleDict()
        self.rescale = nn.ModuleDict()
        taps = []
        for level, scale in zip(self.levels, scales, strict=True):
            tap, width = tap_of[level]
            if fuse == "sum":
                self.mix[str(level)] = _zeroed(nn.Conv2d(width, tap.channels, 1))
                taps.append(tap)
            else:
                self.mix[str(level)] = nn.Conv2d(tap.channels, width, 1)
                self.rescale[str(level)] = Rescale(width, scale)
                taps.append(Tap(f"est.{tap.name}", width, tap.stride / scale))
        self.taps: tuple[Tap, ...] = tuple(taps)

    def step(self, state: Any, index: int, feature: Tensor, inside: Inside | None = None) -> Any:
        """See `Reader.step`. The state is the stream and the maps finished so far."""
        stream, maps = (None, ()) if state is None else state
        at = self.wanted.index(index)
        offered = self.down[at](feature)
        if stream is not None:
            stream = self.between[at](stream)
        stream = self.blocks[at](offered, stream)
        if index in self.levels:
            mix = self.mix[str(index)]
            if self.fuse == "sum":
                maps = (*maps, feature + mix(stream))
            else:
                maps = (*maps, self.rescale[str(index)](stream + mix(feature)))
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


class EstBlock(nn.Module):
    """Gate, multichannel adapter fusion, depthwise convolution."""

    def __init__(self, width: int, kernel_size: int, *, gated: bool) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2 * width, width, 1) if gated else None
        self.norm = nn.LayerNorm(width)
        # the adapters side by side in one matrix: their sum is one product
        self.adapter_widths = [max(1, width // share) for share in FUSION_SHARES]
        self.adapters_down = nn.Linear(width, sum(self.adapter_widths))
        self.adapters_up = _zeroed(nn.Linear(sum(self.adapter_widths), width))
        self.adapter_logits = nn.Parameter(torch.zeros(len(self.adapter_widths)))
        self.enhance = _zeroed(
            nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        )

    def forward(self, offered: Tensor, stream: Tensor | None) -> Tensor:
        """What the frozen block offers and the stream so far, `(B, d, h, w)`, to the new stream."""
        if self.gate is None or stream is None:
            h = offered
        else:
            g = torch.sigmoid(self.gate(torch.cat([offered, stream], dim=1)))
            h = torch.lerp(stream, offered, g.to(stream.dtype))
        weights = self.adapter_logits.softmax(0)
        per_channel = torch.cat(
            [w.expand(n) for w, n in zip(weights, self.adapter_widths, strict=True)]
        )
        inner = F.gelu(self.adapters_down(self.norm(h.permute(0, 2, 3, 1)))) * per_channel
        h = h + self.adapters_up(inner).permute(0, 3, 1, 2)
        enhanced: Tensor = h + self.enhance(h)
        return enhanced


def _default_spacing(depth: int) -> int:
    return 1 if depth <= 12 else 2 if depth <= 24 else 3


def _spaced(backbone: Backbone, levels: list[int], every: int) -> tuple[int, ...]:
    """Every n-th block counted back from the last of each stage, and every level."""
    chosen = set(levels)
    for stage in backbone.stages:
        chosen |= set(stage[::-1][::every])
    return tuple(sorted(chosen))


def _between(before: Tap, after: Tap, width_before: int, width_after: int) -> nn.Module:
    """From one tap's stream to the next: a strided depthwise and a 1x1 between stages."""
    if before.stride == after.stride and width_before == width_after:
        return nn.Identity()
    stride = round(after.stride / before.stride)
    return nn.Sequential(
        nn.Conv2d(
            width_before,
            width_before,
            2 * (stride // 2) + 1,
            stride=stride,
            padding=stride // 2,
            groups=width_before,
        ),
        nn.Conv2d(width_before, width_after, 1),
    )


def _zeroed(layer: Layer) -> Layer:
    """The layer with weights and bias at zero, so that training starts from the frozen features."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
