"""Mona, the multi-cognitive visual adapter (CVPR 2025, arXiv 2408.08345).

    u  = g LN(x) + h x                           g = 1e-6, h = 1 initially, per channel
    v  = Down(u)                                 C to bottleneck
    v' = v + (DW3(v) + DW5(v) + DW7(v)) / 3      depthwise convolutions
    w  = v' + PW(v')                             1x1 convolution
    x' = x + Up(Dropout(GELU(w)))                bottleneck to C; Up starts at zero

Applied to the residual stream of every block, after attention and after the MLP; blocks without
attention have one, on their output. Class and register tokens skip the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import MonaOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    block_widths,
    check_width,
    freeze,
    insert_after_block,
    insert_mid_block,
    require_blocks,
    require_spatial_tokens,
    zero_init,
)


class Mona(MonaOptions, Method):
    """Bottlenecks with convolutions of three sizes, after attention and after the MLP."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "mona")
        require_spatial_tokens(backbone, "mona")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        freeze(backbone)

        def adapter(index: int, channels: int) -> MonaAdapter:
            return MonaAdapter(backbone, index, channels, self.bottleneck_dim, self.dropout)

        for index, channels in enumerate(block_widths(backbone)):
            if backbone.block_parts(index).middle:
                insert_mid_block(backbone, index, adapter(index, channels))
            insert_after_block(backbone, index, adapter(index, channels))
        return checked_encoder(backbone, self)


class MonaAdapter(nn.Module):
    """The formula above, on a block's stream."""

    def __init__(
        self, backbone: Backbone, index: int, channels: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list, so that it is no submodule
        self.index, self.axis = index, ChannelAxis(channels)
        self.norm = nn.LayerNorm(channels)
        self.norm_scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.scale = nn.Parameter(torch.ones(channels))
        self.down = nn.Linear(channels, width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (3, 5, 7)
        )
        self.pointwise = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.up = zero_init(nn.Linear(width, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)`, `(B, h, w, C)` or `(B, C, h, w)` to the same shape."""
        return x + self.axis.apply(self._change, x)

    def _change(self, x: Tensor) -> Tensor:
        v = self.down(self.norm_scale * self.norm(x) + self.scale * x)
        spatial = self._backbone[0].tokens_to_maps(self.index, v, channels_last=True)
        maps = spatial.maps
        maps = maps + sum(convolution(maps) for convolution in self.convolutions) / 3
        w = spatial.restore(maps + self.pointwise(maps))
        change: Tensor = self.up(self.dropout(F.gelu(w)))
        return change
