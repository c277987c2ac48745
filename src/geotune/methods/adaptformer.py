"""AdaptFormer (arXiv 2205.13535): a bottleneck beside the MLP of every block.

    out = MLP(u) + s Up(ReLU(Down(u)))        u: what the MLP gets;  s = 0.1

Up starts at zero, and so does all that it adds.
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
    apply_channels_last,
    beside_mlp,
    check_width,
    freeze,
    require_mlp,
    widths,
    zero_init,
)


class AdaptFormer(AdaptFormerOptions, Method):
    """Bottlenecks beside the MLP of every block."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` where a block has no MLP."""
        require_mlp(backbone, "adaptformer")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        freeze(backbone)
        for index, channels in enumerate(widths(backbone)):
            beside_mlp(backbone, index, ScaledBottleneck(channels, self.bottleneck_dim, self.scale))
        return checked_encoder(backbone, self)


class ScaledBottleneck(nn.Module):
    """`s Up(ReLU(Down(u)))` on vectors, or on the vectors of a map."""

    def __init__(self, channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.channels, self.scale = channels, scale
        self.down = nn.Linear(channels, width)
        self.up = zero_init(nn.Linear(width, channels))

    def forward(self, u: Tensor) -> Tensor:
        """`(..., C)` or `(B, C, h, w)` to the same shape."""
        return apply_channels_last(
            lambda v: self.scale * self.up(F.relu(self.down(v))), u, self.channels
        )
