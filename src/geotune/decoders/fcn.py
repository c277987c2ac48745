"""Fully convolutional head (arXiv 1411.4038): sum the maps, convolve, classify."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from geotune.config.decoder_options import FcnOptions
from geotune.decoders.base import classifier_conv, resize, spatial_size
from geotune.decoders.pyramid import selected_taps
from geotune.types import FeatureMaps, Tap


class Fcn(nn.Module):
    """Projects all maps to `channels` at the finest map's size, sums them, and convolves.

    All convolutions run at the finest resolution. With a stem that is the full image resolution,
    where `unet` needs far less memory.

    With `upsample`, each hidden convolution follows a transposed convolution that doubles the size,
    and layer norm and GELU take the place of batch norm and ReLU (`FCNDecoder` of TerraTorch, arXiv
    2503.20563). A single map is then not projected first.
    """

    recomputable = ("hidden",)

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: FcnOptions) -> None:
        super().__init__()
        channels, upsample = options.channels, options.upsample
        self._used = used = selected_taps(taps, options.levels)
        self._finest = min(used, key=lambda i: taps[i].stride)
        project = len(used) > 1 or not upsample
        self.projections = nn.ModuleList(
            nn.Conv2d(taps[i].channels, channels, kernel_size=1, bias=False)
            if project
            else nn.Identity()
            for i in used
        )
        inputs = [channels if project else taps[used[0]].channels, *[channels] * options.depth]
        self.hidden = nn.Sequential(
            *(
                _upsampling_block(inputs[i], channels) if upsample else _conv_block(channels)
                for i in range(options.depth)
            )
        )
        self.head = classifier_conv(channels, num_outputs)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)` to logits `(B, K, h, w)`.

        `(h, w)` is the size of the finest used map, doubled `depth` times with `upsample`.
        """
        size = spatial_size(features.maps[self._finest])
        projected = [
            resize(projection(features.maps[i]), size)
            for i, projection in zip(self._used, self.projections, strict=True)
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


def _upsampling_block(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, channels, kernel_size=2, stride=2),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        LayerNorm2d(channels),
        nn.GELU(),
    )
