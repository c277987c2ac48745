"""LoRand: adapters of low-rank weights (CVPR 2023, "1% vs 100%: Parameter-Efficient Low Rank
Adapter for Dense Predictions").

    y' = y + U GELU(D y)        D = sum_b A_b G_b B_b    (C to bottleneck)
                                U = sum_b A'_b G_b B'_b  (bottleneck to C)

Both matrices are sums of `branches` products of two thin factors and a `rank` x `rank` kernel G_b.
In the paper all branches and adapters share kernels; here the two matrices of one adapter share
theirs, branch by branch, which keeps blocks independent. Inserted like `adapter`, after attention
and after the MLP; A' starts at zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import LoRandOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    check_width,
    freeze,
    insert_after_attention_and_mlp,
    require_blocks,
)
from geotune.methods.core.method_errors import option_error


class LoRand(LoRandOptions, Method):
    """Bottlenecks whose weights are sums of low-rank products."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "lorand")
        width = self.bottleneck_dim
        check_width("bottleneck_dim", width, backbone)
        if self.rank > width:
            problem = f"method.bottleneck_dim is {width}; choose a rank of at most {width}"
            raise option_error("rank", self.rank, problem)
        freeze(backbone)
        insert_after_attention_and_mlp(
            backbone, lambda channels: LoRandAdapter(channels, width, self.rank, self.branches)
        )
        return checked_encoder(backbone, self)


class LoRandAdapter(nn.Module):
    """`y + U GELU(D y)`."""

    def __init__(self, channels: int, width: int, rank: int, branches: int) -> None:
        super().__init__()
        self.axis = ChannelAxis(channels)
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

        return y + self.axis.apply(change, y)
