"""U-Net decoder (arXiv 1505.04597), with convolutions from segmentation-models-pytorch.

Blocks upsample to the size of their skip connection, so odd sizes work. smp's `UnetDecoder`
requires a skip for every block and drops the finest map, so it is not used here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn

from geotune.config.decoder_options import UnetOptions
from geotune.decoders.base import classifier_conv, spatial_size
from geotune.decoders.pyramid import Pyramid
from geotune.types import FeatureMaps, Tap


class Unet(nn.Module):
    """One block with a skip connection per level, from the coarsest to the finest.

    After the finest level, blocks without a skip double the size until the image resolution or the
    end of `channels` is reached.
    """

    recomputable = ("blocks",)

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: UnetOptions) -> None:
        super().__init__()
        channels = options.channels
        self.pyramid = Pyramid(taps)
        *finer, coarsest = self.pyramid.taps
        skips = [tap.channels for tap in reversed(finer)]
        doublings = max(0, round(math.log2(self.pyramid.taps[0].stride)))
        skips += [0] * min(doublings, max(0, len(channels) - len(skips)))
        widths = [channels[min(i, len(channels) - 1)] for i in range(len(skips))]
        inputs = [coarsest.channels, *widths]
        self.blocks = nn.ModuleList(
            UnetBlock(before, skip, width)
            for before, skip, width in zip(inputs, skips, widths, strict=False)
        )
        initialize_decoder(self.blocks)
        self.head = classifier_conv(inputs[-1], num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)`, `(h, w)` up to the image's size."""
        *finer, x = self.pyramid(features.maps)
        height, width = features.image_size
        for block in self.blocks:
            skip = finer.pop() if finer else None
            if skip is not None:
                size = spatial_size(skip)
            else:
                size = min(2 * x.shape[-2], height), min(2 * x.shape[-1], width)
            x = block(x, *size, skip)
        logits: Tensor = self.head(x)
        return logits


class UnetBlock(nn.Module):
    """Upsample, add the skip, and apply two convolutions with batch norm and ReLU.

    The concatenation of the map and its skip would be the largest tensor of the decoder, kept for
    the backward pass along with a gradient of the same size. Instead, the first convolution is
    computed as the sum of two, one for each input; smp's block concatenates.
    """

    def __init__(self, channels: int, skip: int, width: int) -> None:
        super().__init__()
        self.conv1 = Conv2dReLU(channels + skip, width, 3, padding=1)
        self.conv2 = Conv2dReLU(width, width, 3, padding=1)

    def forward(self, x: Tensor, height: int, width: int, skip: Tensor | None = None) -> Tensor:
        """Maps `(B, C, h, w)` and a skip `(B, C', height, width)` to `(B, D, height, width)`."""
        x = F.interpolate(x, size=(height, width), mode="nearest")
        convolution, *others = self.conv1
        if skip is None:
            x = convolution(x)
        else:
            weight_x, weight_skip = convolution.weight.split([x.shape[1], skip.shape[1]], dim=1)
            x = F.conv2d(x, weight_x, padding=1).add_(F.conv2d(skip, weight_skip, padding=1))
        for layer in others:
            x = layer(x)
        out: Tensor = self.conv2(x)
        return out
