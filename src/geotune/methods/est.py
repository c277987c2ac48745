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

With `inside`, z is the sum of such projections of the block's output, of what its attention adds
to the stream, and of what its MLP adds. A static gate is g = sigmoid(b), one number per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import EstOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import freeze, widths, zero_init
from geotune.methods.core.pca import FixedProjection, principal_components
from geotune.methods.core.reader import BlockActivations, Part, Reader, level_indices
from geotune.methods.core.side_network import (
    downsample,
    require_channels_left,
    require_odd,
    select_blocks,
)
from geotune.methods.core.stride_resize import Rescale, pyramid_scales
from geotune.types import Tap


class Est(EstOptions, Method):
    """Efficient side-tuning: a small network beside the frozen backbone."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a width or kernel that does not fit."""
        require_odd("kernel_size", self.kernel_size)
        require_channels_left(backbone, self.reduction)
        if self.use_block_internals:
            if self.projection_init != "random":
                raise GeotuneError(
                    f"method.projection_init {self.projection_init}: is fitted to the blocks' outputs alone; use "
                    "method.use_block_internals=false or method.projection_init=random"
                )
            require_inside(backbone)
        freeze(backbone)
        encoder = Encoder(backbone, EstStream(backbone, self), self, backbone_frozen=True)
        return check_trainable(encoder)


def require_inside(backbone: Backbone) -> None:
    """Raise `GeotuneError` where what attention and MLP add cannot be told."""
    known = backbone.blocks and backbone.has_spatial_tokens
    if not known or not all(backbone.block_parts(i).mlp for i in range(len(backbone.taps))):
        raise GeotuneError(
            f"method.use_block_internals: {backbone.name} shows no attention and MLP inside its blocks; use "
            "method.use_block_internals=false"
        )


class EstStream(Reader):
    """The side network: one block for each tap it reads, and what it hands on."""

    recomputable = ("blocks", "rescale")

    def __init__(self, backbone: Backbone, options: Est) -> None:
        super().__init__()
        levels = level_indices(backbone)
        self.out_indices = select_blocks(backbone, levels, options.block_stride)
        self.internals_at = self.out_indices if options.use_block_internals else ()
        self.fuse = options.output
        self.samples = 0 if options.projection_init == "random" else 32
        self._fitted = not self.samples
        if self.samples:
            self.register_buffer("fitted", torch.zeros(()))
        read = [backbone.taps[i] for i in self.out_indices]
        side = [
            min(tap.channels, max(tap.channels // options.reduction, options.min_width))
            for tap in read
        ]

        project = FixedProjection if options.projection_init == "pca_fixed" else _Projection
        self.down = nn.ModuleList(
            project(tap.channels, width) for tap, width in zip(read, side, strict=True)
        )
        self.from_inside = nn.ModuleDict()
        for index, width in zip(self.internals_at, side, strict=False):
            parts, channels = backbone.block_parts(index), widths(backbone)[index]
            self.from_inside[str(index)] = nn.ModuleDict(
                {
                    part: nn.Conv2d(channels, width, 1)
                    for part, there in (("attention", parts.middle), ("mlp", parts.mlp))
                    if there
                }
            )
        self.blocks = nn.ModuleList(
            EstBlock(width, options, gated=i > 0) for i, width in enumerate(side)
        )
        self.between = nn.ModuleList(
            downsample(read[i - 1], read[i], side[i - 1], side[i]) if i else nn.Identity()
            for i in range(len(read))
        )

        tap_of = {
            i: (tap, width) for i, tap, width in zip(self.out_indices, read, side, strict=True)
        }
        scales = pyramid_scales(read[-1].stride) if backbone.is_columnar else [1.0] * len(levels)
        if self.fuse == "sum":
            scales = [1.0] * len(levels)
        scales = scales[: len(levels)]  # a shallow ViT has fewer levels than a pyramid
        self.levels = tuple(levels)[-len(scales) :]
        self.fixed = options.projection_init == "pca_fixed"
        self.mix = nn.ModuleDict()
        self.rescale = nn.ModuleDict()
        taps = []
        for level, scale in zip(self.levels, scales, strict=True):
            tap, width = tap_of[level]
            if self.fuse == "sum":
                self.mix[str(level)] = zero_init(nn.Conv2d(width, tap.channels, 1))
                taps.append(tap)
            else:
                inputs = width if self._reduces(level) else tap.channels
                self.mix[str(level)] = nn.Conv2d(inputs, width, 1)
                self.rescale[str(level)] = Rescale(width, scale)
                taps.append(Tap(f"est.{tap.name}", width, tap.stride / scale))
        self.taps = tuple(taps)

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. Raises `GeotuneError` where it should have been calibrated."""
        if self.training and not self._fitted:
            self._fitted = bool(self.get_buffer("fitted"))  # an adapter's is
            if not self._fitted:
                raise GeotuneError(
                    "method.projection_init: the principal components are not known yet; show the encoder "
                    "some images with encoder.calibrate(batches) before training"
                )
        return None

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the stream and the maps finished so far."""
        stream, maps = (None, ()) if state is None else state
        at = self.out_indices.index(index)
        offered = feature if self._reduces(index) else self.down[at](feature)
        if inside is not None:
            for part, project in self.from_inside[str(index)].items():  # type: ignore[operator]
                offered = offered + project(getattr(inside, part))
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

    def required_inputs(self, index: int) -> tuple[Part, ...]:
        """See `Reader.required_inputs`."""
        return ("feature", "attention", "mlp") if index in self.internals_at else ("feature",)

    def compress(self, index: int, feature: Tensor) -> Tensor:
        """See `Reader.compress`: the fixed projections, `(B, d, h, w)`."""
        if not self._reduces(index):
            return feature
        out: Tensor = self.down[self.out_indices.index(index)](feature)
        return out

    def reduction(self) -> nn.Module | None:
        """See `Reader.reduction`."""
        return self.down if self.fixed else None

    def _reduces(self, index: int) -> bool:
        """Whether the projection is all that is read of a tap."""
        return self.fixed and not (self.fuse == "sum" and index in self.levels)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps

    def calibrate(self, features: Mapping[int, Tensor]) -> None:
        """See `Reader.calibrate`: the projections become the taps' principal components."""
        for index, down in zip(self.out_indices, self.down, strict=True):
            own = down.get_buffer if isinstance(down, FixedProjection) else down.get_parameter
            weight, bias = principal_components(features[index], len(own("bias")))
            own("weight").copy_(weight)
            own("bias").copy_(bias)
        self.get_buffer("fitted").fill_(1)
        self._fitted = True


class EstBlock(nn.Module):
    """Gate, multichannel adapter fusion, depthwise convolution."""

    def __init__(self, width: int, options: Est, *, gated: bool) -> None:
        super().__init__()
        self.gate: nn.Module | None = None
        if gated:
            dynamic = options.gate == "dynamic"
            self.gate = nn.Conv2d(2 * width, width, 1) if dynamic else _StaticGate(width)
        self.norm = nn.LayerNorm(width)
        # the adapters side by side in one matrix: their sum is one product
        self.adapter_widths = [max(1, width // share) for share in options.adapters]
        self.adapters_down = nn.Linear(width, sum(self.adapter_widths))
        self.adapters_up = zero_init(nn.Linear(sum(self.adapter_widths), width))
        several = len(self.adapter_widths) > 1
        self.adapter_logits = nn.Parameter(torch.zeros(len(self.adapter_widths)), several)
        side = options.kernel_size
        self.enhance = zero_init(nn.Conv2d(width, width, side, padding=side // 2, groups=width))

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


class _StaticGate(nn.Module):
    """The same gate everywhere, whatever is offered."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, both: Tensor) -> Tensor:
        return self.bias.expand(len(both), -1, *both.shape[-2:])


class _Projection(nn.Conv2d):
    """A 1x1 convolution that trains."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 1)
