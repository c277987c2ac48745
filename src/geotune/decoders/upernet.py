"""UPerNet decoder (arXiv 1807.10221) from segmentation-models-pytorch, on any pyramid.

UPerNet fuses all levels at full width at the size of the finest. It is designed for stride 4; at
the image resolution it would need too much memory. Levels from stride 4 on are therefore fused by
UPerNet, and finer ones are added afterwards in narrower U-Net blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from geotune.config.decoder_options import UpernetOptions
from geotune.decoders.base import classifier_conv, spatial_size
from geotune.decoders.pyramid import SAME_LEVEL, Pyramid
from geotune.decoders.unet import UnetBlock
from geotune.types import FeatureMaps, Tap

FUSED_STRIDE = 4


class Upernet(nn.Module):
    """Pyramid pooling and FPN with `channels`, which are halved at each finer level."""

    recomputable = ("fuse", "refine")

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: UpernetOptions) -> None:
        super().__init__()
        channels = options.channels
        self.pyramid = Pyramid(taps)
        levels = self.pyramid.taps
        fine = sum(tap.stride * SAME_LEVEL <= FUSED_STRIDE for tap in levels)
        self._fine = fine = min(fine, len(levels) - 1)
        coarse = [tap.channels for tap in levels[fine:]]
        # smp's class only requires `encoder_depth` to be 3 or more, and drops the first two
        # entries, strides 1 and 2.
        self.fuse = UPerNetDecoder([0, 0, *coarse], max(3, len(coarse) + 1), channels)
        # Batch norm on one pixel fails for a batch of one; smp's PSPNet also omits it.
        self.fuse.psp.blocks[0] = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), Conv2dReLU(coarse[-1], channels, 1, use_norm="identity")
        )
        widths = [channels] + [max(1, channels >> i) for i in range(1, fine + 1)]
        skips = [tap.channels for tap in reversed(levels[:fine])]
        self.refine = nn.ModuleList(
            UnetBlock(before, skip, after)
            for before, skip, after in zip(widths, skips, widths[1:], strict=False)
        )
        initialize_decoder(self.fuse)
        initialize_decoder(self.refine)
        self.head = classifier_conv(widths[-1], num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)` at the size of the finest level."""
        levels = self.pyramid(features.maps)
        fine, coarse = levels[: self._fine], levels[self._fine :]
        # A new list, because smp's forward modifies it in place.
        x: Tensor = self.fuse([coarse[0], coarse[0], *coarse])
        for block, skip in zip(self.refine, reversed(fine), strict=True):
            x = block(x, *spatial_size(skip), skip)
        logits: Tensor = self.head(x)
        return logits
