"""Rein: learnt tokens refine the features between frozen blocks (CVPR 2024, arXiv 2312.04265).

    S  = softmax(f T' / sqrt(C))               similarity of each position to n tokens T = A B
    f' = f + a MLP_f(S[:, 1:] MLP_t(T[1:]) + f)

f is the output of a block, without class and register tokens; A is n x rank and B rank x C, of each
block its own. Both MLPs are single linear layers that all blocks share, like the scale a, which
starts at 0.001, so that training starts near the frozen features. The first token takes similarity
but adds nothing. A and B are initialised uniformly in +-sqrt(6 / (3 P^2 + sqrt(C rank))), with
patch size P, as in the authors' code. In a hierarchical backbone the blocks of each width share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import ReinOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    add_shared_part,
    block_widths,
    check_width,
    freeze,
    insert_after_block,
    require_blocks,
    require_spatial_tokens,
)


class Rein(ReinOptions, Method):
    """Learnt tokens that refine the output of every block."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "rein")
        require_spatial_tokens(backbone, "rein")
        check_width("rank", self.rank, backbone)
        freeze(backbone)
        widths = block_widths(backbone)
        shared = nn.ModuleDict({str(width): ReinLayers(width) for width in sorted(set(widths))})
        for index, width in enumerate(widths):
            layers = shared[str(width)]
            assert isinstance(layers, ReinLayers)
            part = ReinRefinement(backbone, index, layers, self.num_tokens, self.rank)
            insert_after_block(backbone, index, part)
        add_shared_part(backbone, shared)
        return checked_encoder(backbone, self)


class ReinLayers(nn.Module):
    """What all blocks of one width share: MLP_t, MLP_f and a."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.token_mlp = nn.Linear(channels, channels)
        self.feature_mlp = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.tensor(0.001))


class ReinRefinement(nn.Module):
    """The formula above, on a block's output."""

    def __init__(
        self, backbone: Backbone, index: int, layers: ReinLayers, num_tokens: int, rank: int
    ) -> None:
        super().__init__()
        self._backbone, self._layers = [backbone], [layers]  # in lists, so no submodules
        self.index = index
        channels = layers.channels
        self.axis = ChannelAxis(channels)
        bound = math.sqrt(6 / (3 * backbone.taps[index].stride ** 2 + math.sqrt(channels * rank)))
        self.a = nn.Parameter(torch.empty(num_tokens, rank).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(rank, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)`, `(B, h, w, C)` or `(B, C, h, w)` to the same shape."""
        return self.axis.apply(self._refine, x)

    def _refine(self, x: Tensor) -> Tensor:
        spatial = self._backbone[0].tokens_to_maps(self.index, x, channels_last=True)
        f = spatial.maps.permute(0, 2, 3, 1)
        return spatial.restore((f + self.change(f)).permute(0, 3, 1, 2))

    def change(self, f: Tensor) -> Tensor:
        """What is added to features `(..., C)`."""
        layers = self._layers[0]
        tokens = self.a @ self.b
        similarity = (f @ tokens.T / math.sqrt(layers.channels)).softmax(-1)
        mixed = similarity[..., 1:] @ layers.token_mlp(tokens[1:])
        change: Tensor = layers.scale * layers.feature_mlp(mixed + f)
        return change
