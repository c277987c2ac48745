"""Fully convolutional head (arXiv 1411.4038): sum the maps, convolve, classify."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from geotune.config.decoder_options import FcnOptions
from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.types import FeatureMaps, Tap


class Fcn(nn.Module):
    """Projects all maps to `channels` at the finest map's size, sums them, and convolves.

    All convolutions run at the finest resolution. With a stem that is the full image resolution,
    where `unet` needs far less memory.
    """

    recomputable = ("hidden",)

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: FcnOptions) -> None:
        super().__init__()
        channels = options.channels
        if not taps:
            raise ValueError("the fcn decoder needs at least one tap, found none")
        self._finest = min(range(len(taps)), key=lambda i: taps[i].stride)
        self.projections = nn.ModuleList(
            nn.Conv2d(tap.channels, channels, kernel_size=1, bias=False) for tap in taps
        )
        self.hidden = nn.Sequential(*(_conv_block(channels) for _ in range(options.depth)))
        self.head = classifier_conv(channels, num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)` at the size of the finest map."""
        size = spatial_size(features.maps[self._finest])
        projected = [
            resize(projection(x), size)
            for x, projection in zip(features.maps, self.projections, strict=True)
        ]
        total: Tensor = projected[0]
        for x in projected[1:]:
            total = total + x
        logits: Tensor = self.head(self.hidden(total))
        return logits


def _conv_block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
