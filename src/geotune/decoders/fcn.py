"""A fully convolutional head (arXiv 1411.4038): sum the maps, convolve, classify."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.types import FeatureMaps, Tap


class Fcn(nn.Module):
    """Every map to `channels` and to the finest map's size, summed, then `depth` convolutions.

    All convolutions work at the finest map's resolution: with a stem that is the image's own,
    where `unet` needs far less memory.
    """

    recomputable = ("hidden",)

    def __init__(
        self, taps: Sequence[Tap], num_outputs: int, channels: int = 128, depth: int = 2
    ) -> None:
        """`depth` counts the hidden 3x3 convolutions, each with batch norm and ReLU."""
        super().__init__()
        if not taps:
            raise ValueError("the fcn decoder needs at least one tap, found none")
        self._finest = min(range(len(taps)), key=lambda i: taps[i].stride)
        self.projections = nn.ModuleList(
            nn.Conv2d(tap.channels, channels, kernel_size=1, bias=False) for tap in taps
        )
        self.hidden = nn.Sequential(*(_block(channels) for _ in range(depth)))
        self.head = classifier_conv(channels, num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)` at the size of the finest map."""
        size = spatial_size(features.maps[self._finest])
        parts = [
            resize(projection(x), size)
            for x, projection in zip(features.maps, self.projections, strict=True)
        ]
        total: Tensor = parts[0]
        for part in parts[1:]:
            total = total + part
        logits: Tensor = self.head(self.hidden(total))
        return logits


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
