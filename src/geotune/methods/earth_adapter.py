r"""Earth-Adapter: bottlenecks on spatial, low- and high-frequency features (arXiv 2504.06220).

    x' = x + s (w_1 M_1(x) + w_2 M_2(low) + w_3 M_3(high))     w = softmax(R x), per position
    x' = x + s M_1(x)                                          in all but the last blocks

      x --+--> M_1 -----------------\
          |--> FFT --+--> low --> M_2 --> router --> s --> + --> x'
          |          \--> high -> M_3 --/                 |
          \------------------------------------------------/

M(u) = Up(ReLU(Down(u))). The output of a block, without class and register tokens, is a map of
h x w positions; low keeps its frequencies of at most `cutoff` min(h, w) / 2 in both directions,
high = x - low. The scale s of each block is learnt from 0.1. The paper has 24 blocks, frequencies
in the last 3, and cut-offs of 0.2 to 0.3.

Choices of ours: Up starts at zero, so that training starts from the frozen features. The authors'
window of low frequencies lacks the highest positive one; ours is symmetric, so low is real.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import EarthAdapterOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ChannelAxis,
    block_widths,
    check_width,
    freeze,
    insert_after_block,
    require_blocks,
    require_spatial_tokens,
    zero_init,
)


class EarthAdapter(EarthAdapterOptions, Method):
    """Bottlenecks after every block; in the last blocks also on low and high frequencies."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "earth_adapter")
        require_spatial_tokens(backbone, "earth_adapter")
        check_width("bottleneck_dim", self.bottleneck_dim, backbone)
        freeze(backbone)
        first = len(backbone.blocks) - self.frequency_blocks
        for index, channels in enumerate(block_widths(backbone)):
            cutoff = self.cutoff if index >= first else None
            part = FrequencyExperts(
                backbone, index, channels, self.bottleneck_dim, self.scale, cutoff
            )
            insert_after_block(backbone, index, part)
        return checked_encoder(backbone, self)


class FrequencyExperts(nn.Module):
    """The formula above, on a block's output; without `cutoff` the spatial expert alone."""

    def __init__(
        self,
        backbone: Backbone,
        index: int,
        channels: int,
        width: int,
        scale: float,
        cutoff: float | None,
    ) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list, so that it is no submodule
        self.index, self.cutoff = index, cutoff
        self.axis = ChannelAxis(channels)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, width), nn.ReLU(), zero_init(nn.Linear(width, channels))
            )
            for _ in range(1 if cutoff is None else 3)
        )
        self.router = None if cutoff is None else nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)`, `(B, h, w, C)` or `(B, C, h, w)` to the same shape."""
        return self.axis.apply(self._adapt, x)

    def _adapt(self, x: Tensor) -> Tensor:
        spatial = self._backbone[0].tokens_to_maps(self.index, x, channels_last=True)
        return spatial.restore(spatial.maps + self.change(spatial.maps))

    def change(self, maps: Tensor) -> Tensor:
        """What is added to maps `(B, C, h, w)`."""
        inputs = [maps]
        if self.cutoff is not None:
            inputs += split_frequencies(maps, self.cutoff)
        vectors = [u.permute(0, 2, 3, 1) for u in inputs]
        outputs = [expert(u) for expert, u in zip(self.experts, vectors, strict=True)]
        if self.router is None:
            total = outputs[0]
        else:
            weights = self.router(vectors[0]).softmax(-1)
            total = torch.stack(outputs, -1) @ weights[..., None].to(outputs[0].dtype)
            total = total.squeeze(-1)
        change: Tensor = (self.scale * total).permute(0, 3, 1, 2)
        return change


def split_frequencies(maps: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Split maps `(B, C, h, w)` into low and high frequencies, which sum to them."""
    height, width = maps.shape[-2:]
    limit = int(cutoff * min(height, width) / 2)
    rows = torch.arange(height, device=maps.device)
    rows = torch.minimum(rows, height - rows) <= limit
    columns = torch.arange(width // 2 + 1, device=maps.device) <= limit
    with torch.autocast(maps.device.type, enabled=False):
        spectrum = torch.fft.rfft2(maps.float()) * (rows[:, None] & columns)
        low = torch.fft.irfft2(spectrum, (height, width)).to(maps.dtype)
    return low, maps - low
