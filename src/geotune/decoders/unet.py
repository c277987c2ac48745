"""UNet's decoder (arXiv 1505.04597), with segmentation-models-pytorch's blocks.

Its blocks upsample to a given size, so odd sizes fit. Its `UnetDecoder` around them wants one
skip for every block and drops the finest map, so the loop over levels is our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn

from geotune.decoders.base import last_layer, size_of
from geotune.decoders.pyramid import Pyramid
from geotune.types import FeatureMaps, Tap


class Unet(nn.Module):
    """From the coarsest level to the finest, one block and one skip for each level.

    After the finest level, blocks without a skip double the size until the image's resolution
    is reached or `channels` is used up.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        num_outputs: int,
        channels: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        """`channels` are the blocks' widths, coarse to fine; where too few, the last repeats."""
        super().__init__()
        if not channels:
            raise ValueError("unet needs at least one width in channels, found none")
        self.pyramid = Pyramid(taps)
        *finer, coarsest = self.pyramid.taps
        skips = [tap.channels for tap in reversed(finer)]
        doublings = max(0, round(math.log2(self.pyramid.taps[0].stride)))
        skips += [0] * min(doublings, max(0, len(channels) - len(skips)))
        widths = [channels[min(i, len(channels) - 1)] for i in range(len(skips))]
        inputs = [coarsest.channels, *widths]
        self.blocks = nn.ModuleList(
            UnetDecoderBlock(before, skip, width)
            for before, skip, width in zip(inputs, skips, widths, strict=False)
        )
        initialize_decoder(self.blocks)
        self.head = last_layer(inputs[-1], num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)`, `(h, w)` up to the image's size."""
        *finer, x = self.pyramid(features.maps)
        height, width = features.image_size
        for block in self.blocks:
            skip = finer.pop() if finer else None
            if skip is not None:
                size = size_of(skip)
            else:
                size = min(2 * x.shape[-2], height), min(2 * x.shape[-1], width)
            x = block(x, *size, skip)
        logits: Tensor = self.head(x)
        return logits
