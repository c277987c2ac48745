"""LoSA, low-rank side adaptation (CVPR 2024, arXiv 2402.02887).

    y_i = y_(i-1) + g_i(x_i + y_(i-1))       y_0 = 0; decoder: x_i + y_i at the levels
    g(u): u = LN(u)
          u = u + Up(GELU(Down(u)))          channels: C -> r -> C
          u = u + Up(GELU(Down(u)))          tokens:   N -> r -> N, the same for every channel
          g = Up(GELU(Down(u)))              channels

A parallel network refines the output x_i of each frozen block by low-rank mixers that alternate
between channels and tokens; no gradient crosses the backbone. The last Up of each mixer starts at
zero. The paper has a fixed number of tokens N and no code; order and norm inside the mixer are our
reading. Choices of ours: the token weights are maps of 14 x 14 positions that are resized to the
features, so that images may be of any size, and in a hierarchical backbone each stage has a stream
of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import LosaOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import freeze, require_equal_widths, zero_init
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import select_blocks

GRID = 14
"""Rows and columns of the token weights."""


class Losa(LosaOptions, Method):
    """Low-rank mixers of channels and tokens refine the outputs of the frozen blocks."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_equal_widths(backbone, "losa")
        narrowest = min(tap.channels for tap in backbone.taps)
        if self.rank > narrowest:
            problem = f"{backbone.name} has taps of {narrowest} channels"
            raise option_error("rank", self.rank, f"{problem}; choose at most {narrowest}")
        freeze(backbone)
        reader = SideMixers(backbone, self.rank, self.block_stride)
        return checked_encoder(backbone, self, reader, backbone_frozen=True)


class SideMixers(Reader):
    """The side network: a mixer for each tap that it reads."""

    recomputable = ("mixers",)

    def __init__(self, backbone: Backbone, rank: int, block_stride: int | None) -> None:
        super().__init__()
        self.levels = tuple(level_indices(backbone))
        self.out_indices = select_blocks(backbone, list(self.levels), block_stride)
        self.taps = tuple(backbone.taps[i] for i in self.levels)
        self.stage_of = {i: at for at, stage in enumerate(backbone.stages) for i in stage}
        self.mixers = nn.ModuleDict(
            {str(i): LowRankMixer(backbone.taps[i].channels, rank) for i in self.out_indices}
        )

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is y, its stage, and the maps so far."""
        stream, stage, maps = (feature, None, ()) if state is None else state
        if stage != self.stage_of[index]:
            stream = torch.zeros_like(feature)
        stream = stream + self.mixers[str(index)](feature + stream)
        if index in self.levels:
            maps = (*maps, feature + stream)
        return stream, self.stage_of[index], maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[2]
        return maps


class LowRankMixer(nn.Module):
    """g of the formula above."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.channels_in = _bottleneck(channels, rank)
        self.token_down = nn.Parameter(torch.empty(rank, GRID, GRID))
        self.token_bias = nn.Parameter(torch.zeros(rank))
        self.token_up = nn.Parameter(torch.empty(rank, GRID, GRID))
        nn.init.uniform_(self.token_down, -1 / GRID, 1 / GRID)
        nn.init.uniform_(self.token_up, -(rank**-0.5), rank**-0.5)
        self.channels_out = _bottleneck(channels, rank)
        zero_init(self.channels_out[2])

    def forward(self, u: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        u = self.norm(u.permute(0, 2, 3, 1))
        u = u + self.channels_in(u)
        u = u + self._mix_tokens(u)
        out: Tensor = self.channels_out(u).permute(0, 3, 1, 2)
        return out

    def _mix_tokens(self, u: Tensor) -> Tensor:
        """`(B, h, w, C)` to the same shape; sums over pixels count as those of the grid."""
        height, width = u.shape[1:3]
        both = torch.stack([self.token_down, self.token_up])
        if (height, width) != (GRID, GRID):
            both = F.interpolate(both, (height, width), mode="bilinear")
        down, up = both.to(u.dtype)
        pixels = GRID * GRID / (height * width)
        inner = pixels * torch.einsum("rhw,bhwc->brc", down, u) + self.token_bias[:, None]
        return torch.einsum("rhw,brc->bhwc", up, F.gelu(inner))


def _bottleneck(channels: int, rank: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, rank), nn.GELU(), nn.Linear(rank, channels))
