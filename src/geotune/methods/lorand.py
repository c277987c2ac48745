"""LoRand (CVPR 2023, "1% vs 100%: Parameter-Efficient Low Rank Adapter for Dense Predictions").

    y' = y + U GELU(D y)        D = sum_b A_b G B_b  (C to width),  U = sum_b A'_b G B'_b  (back)

Each of the two matrices is a sum of 4 products of two thin factors and a kernel of 8 x 8. The paper
lets all branches and adapters share kernels; here one kernel G is shared by the two matrices of an
adapter, branch by branch, which keeps each block's parts its own. After attention and after the
MLP, as `adapter` does; in the product for U the last factor starts at zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import LoRandOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    after_parts,
    apply_channels_last,
    check_width,
    freeze,
    require_blocks,
)


class LoRand(LoRandOptions, Method):
    """Bottlenecks whose weights are sums of low-rank products."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a width or rank that does not fit."""
        require_blocks(backbone, "lorand")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        if self.rank > self.bottleneck_dim:
            raise GeotuneError(
                f"method.rank {self.rank}: the bottleneck is {self.bottleneck_dim} wide (method.bottleneck_dim); "
                f"choose at most {self.bottleneck_dim}"
            )
        freeze(backbone)
        after_parts(
            backbone, lambda c: LoRandAdapter(c, self.bottleneck_dim, self.rank, self.branches)
        )
        return checked_encoder(backbone, self)


class LoRandAdapter(nn.Module):
    """`y + U GELU(D y)` on vectors, or on the vectors of a map."""

    def __init__(self, channels: int, width: int, rank: int, branches: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel = nn.Parameter(torch.empty(branches, rank, rank))
        self.down_in = nn.Parameter(torch.empty(branches, rank, channels))
        self.down_out = nn.Parameter(torch.empty(branches, width, rank))
        self.up_in = nn.Parameter(torch.empty(branches, rank, width))
        self.up_out = nn.Parameter(torch.zeros(branches, channels, rank))
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up_bias = nn.Parameter(torch.zeros(channels))
        for factor in (self.kernel, self.down_in, self.down_out, self.up_in):
            for branch in factor:
                nn.init.xavier_uniform_(branch)

    def forward(self, y: Tensor) -> Tensor:
        """`(..., C)` or `(B, C, h, w)` to the same shape."""
        down = (self.down_out @ self.kernel @ self.down_in).sum(0)
        up = (self.up_out @ self.kernel @ self.up_in).sum(0)

        def change(v: Tensor) -> Tensor:
            return F.linear(F.gelu(F.linear(v, down, self.down_bias)), up, self.up_bias)

        return y + apply_channels_last(change, y, self.channels)
