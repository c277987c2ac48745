r"""Side-tuning: a small network on the image, blended with the frozen one (arXiv 1912.13503).

    y_l = alpha_l x_l + (1 - alpha_l) s_l(image)        alpha = sigmoid(a), a = 0 initially

    image --> frozen backbone --> x_l --+
      \-----> small network ----> s_l --+--> y_l        for each level l of the pyramid

The paper blends the final outputs of two networks; here each level of the pyramid has its own
alpha. The small network is convolutional: a trunk down to the strides of the levels, with a 1x1 to
each level's channels. Training starts halfway between the frozen features and those of the small
network, not at `frozen`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import SideTuneOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import freeze
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import LayerNorm2d, strided_conv

MAX_WIDTH_FACTOR = 8
"""Widest layer of the trunk, relative to its first convolution."""


class SideTune(SideTuneOptions, Method):
    """A small convolutional network on the image, blended with the frozen features."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        freeze(backbone)
        return checked_encoder(
            backbone, self, SideNetwork(backbone, self.width), backbone_frozen=True
        )


class SideNetwork(Reader):
    """The small network and the blending."""

    recomputable = ("trunk",)

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.out_indices = tuple(level_indices(backbone))
        self.taps = tuple(backbone.taps[i] for i in self.out_indices)
        inputs, stride, outputs = len(backbone.bands) * backbone.timesteps, 1.0, width
        self.trunk = nn.ModuleList()
        self.heads = nn.ModuleList()
        for tap in self.taps:
            layers: list[nn.Module] = []
            for factor in _prime_factors(round(tap.stride / stride)):
                layers.append(_conv_norm_gelu(inputs, outputs, factor))
                inputs, outputs = outputs, min(MAX_WIDTH_FACTOR * width, factor * outputs)
            if not self.trunk and not layers:  # a backbone of stride 1
                layers.append(_conv_norm_gelu(inputs, outputs, 1))
                inputs = outputs
            self.trunk.append(nn.Sequential(*layers))
            self.heads.append(nn.Conv2d(inputs, tap.channels, 1))
            stride = tap.stride
        self.blend = nn.ParameterList(torch.zeros(()) for _ in self.taps)

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. The state is the small network's maps and the blended maps so far."""
        x = images.flatten(1, -3)
        side_maps = []
        for trunk, head in zip(self.trunk, self.heads, strict=True):
            x = trunk(x)
            side_maps.append(head(x))
        return side_maps, ()

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        side_maps, maps = state
        level = self.out_indices.index(index)
        side = side_maps[level]
        if side.shape[-2:] != feature.shape[-2:]:  # some encoders have fractional strides
            side = F.interpolate(side, feature.shape[-2:], mode="bilinear")
        alpha = torch.sigmoid(self.blend[level])
        return side_maps, (*maps, alpha * feature + (1 - alpha) * side)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


def _conv_norm_gelu(inputs: int, outputs: int, factor: int) -> nn.Sequential:
    # layer norm: batches are small, and a level may have a single pixel
    conv = (
        strided_conv(inputs, outputs, factor)
        if factor > 1
        else nn.Conv2d(inputs, outputs, 3, padding=1)
    )
    return nn.Sequential(conv, LayerNorm2d(outputs), nn.GELU())


def _prime_factors(number: int) -> list[int]:
    """Prime factors, ascending: the strides of convolutions that multiply to this stride."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
