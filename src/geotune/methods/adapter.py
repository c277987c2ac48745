"""Bottleneck adapters inside the blocks (Houlsby et al., arXiv 1902.00751).

    y' = y + Up(GELU(Down(y)))        y: output of attention, or of the MLP

      attention --> adapter --> +      MLP --> adapter --> +      (+: residual addition)

Up starts at zero. Blocks with an MLP alone have one adapter; blocks with neither (ResNet) have one
on their output.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import AdapterOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    check_width,
    freeze,
    insert_after_attention_and_mlp,
    require_blocks,
    zero_init,
)


class Adapter(AdapterOptions, Method):
    """Bottlenecks after attention and after the MLP of every block."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "adapter")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        freeze(backbone)
        insert_after_attention_and_mlp(
            backbone, lambda channels: Bottleneck(channels, self.bottleneck_dim)
        )
        return checked_encoder(backbone, self)


class Bottleneck(nn.Module):
    """`y + Up(GELU(Down(y)))`."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.axis = ChannelAxis(channels)
        self.down = nn.Linear(channels, width)
        self.up = zero_init(nn.Linear(width, channels))

    def forward(self, y: Tensor) -> Tensor:
        """`(..., C)` or `(B, C, h, w)` to the same shape."""
        return y + self.axis.apply(lambda v: self.up(F.gelu(self.down(v))), y)
