"""UniPT, universal parallel tuning (CVPR 2024, arXiv 2308.14316).

    z_i = LN(W_i x_i)                                   C -> d; L: the last block
    A_i = l1(relu(z_L z_i')) + 1                        rows sum to one, plus the identity
    c   = softmax_i(w . (mean(z_L) * mean(z_i)))        confidence in each earlier block
    s   = relu(z_L + LN(W_p sum_i c_i A_i z_i))         sum over the earlier blocks
    y_l = x_l + Up_l(s)                                 at the levels of the pyramid

No gradient crosses the backbone. Choices of ours: the paper returns Up(s) alone, in place of the
last features; here each level of the pyramid gets it, added to the frozen features, and Up starts
at zero. In a hierarchical backbone z_i is averaged to the pixels of the last map, so attention
stays small, and s is resized bilinearly to the levels. A bias of w would cancel in the softmax.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import UniptOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import freeze, zero_init
from geotune.methods.core.method_errors import unsupported_error
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import (
    LayerNorm2d,
    check_reduction,
    select_blocks,
    side_width,
)


class Unipt(UniptOptions, Method):
    """Attention from the last block's features to those of the earlier frozen blocks."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        check_reduction(backbone, self.reduction)
        reader = ParallelAttention(backbone, self.reduction, self.block_stride)
        if len(reader.out_indices) < 2:
            problem = "needs at least two blocks; choose lst or est"
            raise unsupported_error("unipt", backbone.name, problem)
        freeze(backbone)
        return checked_encoder(backbone, self, reader, backbone_frozen=True)


class ParallelAttention(Reader):
    """The side network: narrow features of all blocks, aggregated after the last."""

    def __init__(self, backbone: Backbone, reduction: int, block_stride: int | None) -> None:
        super().__init__()
        self.levels = tuple(level_indices(backbone))
        self.out_indices = select_blocks(backbone, list(self.levels), block_stride)
        self.taps = tuple(backbone.taps[i] for i in self.levels)
        channels = backbone.taps[-1].channels
        width = side_width(channels, reduction)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(backbone.taps[i].channels, width, 1), LayerNorm2d(width))
            for i in self.out_indices
        )
        self.confidence = nn.Linear(width, 1, bias=False)
        self.confidence.requires_grad_(len(self.out_indices) > 2)  # a softmax of one is constant
        self.project = nn.Sequential(nn.Conv2d(width, width, 1), LayerNorm2d(width))
        self.up = nn.ModuleDict(
            {str(i): zero_init(nn.Conv2d(width, backbone.taps[i].channels, 1)) for i in self.levels}
        )

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is every z so far and the features at the levels."""
        narrow, features = ((), ()) if state is None else state
        narrow = (*narrow, self.down[self.out_indices.index(index)](feature))
        if index in self.levels:
            features = (*features, feature)
        return narrow, features

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        narrow, features = state
        stream = self.aggregate(list(narrow))
        maps = []
        for level, feature in zip(self.levels, features, strict=True):
            change = self.up[str(level)](stream)
            if change.shape[-2:] != feature.shape[-2:]:
                change = F.interpolate(change, feature.shape[-2:], mode="bilinear")
            maps.append(feature + change)
        return tuple(maps)

    def aggregate(self, narrow: list[Tensor]) -> Tensor:
        """Every z_i `(B, d, h_i, w_i)` to s `(B, d, h_L, w_L)`."""
        last = narrow[-1]
        size = (last.shape[-2], last.shape[-1])
        tokens = last.flatten(2)
        merged, confidences = [], []
        for z in narrow[:-1]:
            if z.shape != last.shape:
                z = F.adaptive_avg_pool2d(z, size)
            z = z.flatten(2)
            attention = F.normalize(torch.relu(tokens.mT @ z), p=1, dim=-1)
            merged.append(z + z @ attention.mT)
            confidences.append(self.confidence(tokens.mean(2) * z.mean(2)))
        weights = torch.cat(confidences, 1).softmax(1)
        total = torch.einsum("bi,ibdn->bdn", weights.to(tokens.dtype), torch.stack(merged))
        return torch.relu(last + self.project(total.reshape(last.shape)))
