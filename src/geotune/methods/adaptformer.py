r"""AdaptFormer: a bottleneck parallel to the MLP of every block (arXiv 2205.13535).

    out = MLP(u) + s Up(ReLU(Down(u)))        u: input of the MLP;  s = 0.1

      u --+--> MLP ------------------------> + --> out
          \--> Down --> ReLU --> Up --> s --/

Up starts at zero, so training starts at the frozen features.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import AdaptFormerOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    block_widths,
    check_width,
    freeze,
    insert_parallel_to_mlp,
    require_mlp,
    zero_init,
)


class AdaptFormer(AdaptFormerOptions, Method):
    """Bottlenecks parallel to the MLP of every block."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_mlp(backbone, "adaptformer")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        freeze(backbone)
        for index, channels in enumerate(block_widths(backbone)):
            bottleneck = ScaledBottleneck(channels, self.bottleneck_dim, self.scale)
            insert_parallel_to_mlp(backbone, index, bottleneck)
        return checked_encoder(backbone, self)


class ScaledBottleneck(nn.Module):
    """`s Up(ReLU(Down(u)))`."""

    def __init__(self, channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.axis, self.scale = ChannelAxis(channels), scale
        self.down = nn.Linear(channels, width)
        self.up = zero_init(nn.Linear(width, channels))

    def forward(self, u: Tensor) -> Tensor:
        """`(..., C)` or `(B, C, h, w)` to the same shape."""
        return self.axis.apply(lambda v: self.scale * self.up(F.relu(self.down(v))), u)
