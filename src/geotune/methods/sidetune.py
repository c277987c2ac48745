"""Side-tuning: a small network on the image, blended with the frozen one (arXiv 1912.13503).

    y = alpha x + (1 - alpha) s(image)        alpha = sigmoid(a), a = 0 at the start

x is a frozen map and s(image) what the small network makes of the same image; both and alpha are
those of one level. Our reading: the paper blends the final outputs of two networks, here every
level of the pyramid is blended with an alpha of its own. The small network is convolutional, one
trunk down to the levels' strides with a 1x1 to each level's channels. Training starts half way
between the frozen features and those of the small network, not from `frozen`.
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
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import freeze
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import LayerNorm2d, strided

WIDEST = 8
"""The trunk is at most so many times as wide as its first convolution."""


class SideTune(SideTuneOptions, Method):
    """A small convolutional network on the image, blended with the frozen features."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        freeze(backbone)
        reader = SideNetwork(backbone, self.width)
        encoder = Encoder(backbone, reader, self, backbone_frozen=True)
        return check_trainable(encoder)


class SideNetwork(Reader):
    """The small network, and what blends its maps with the frozen ones."""

    recomputable = ("trunk",)

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.out_indices = tuple(level_indices(backbone))
        self.taps = tuple(backbone.taps[i] for i in self.out_indices)
        inputs, stride, current = len(backbone.bands) * backbone.timesteps, 1.0, width
        self.trunk = nn.ModuleList()
        self.heads = nn.ModuleList()
        for tap in self.taps:
            layers: list[nn.Module] = []
            for factor in _factors(round(tap.stride / stride)):
                layers.append(_convolution(inputs, current, factor))
                inputs, current = current, min(WIDEST * width, factor * current)
            if not self.trunk and not layers:  # a backbone of pixels
                layers.append(_convolution(inputs, current, 1))
                inputs = current
            self.trunk.append(nn.Sequential(*layers))
            self.heads.append(nn.Conv2d(inputs, tap.channels, 1))
            stride = tap.stride
        self.blend = nn.ParameterList(torch.zeros(()) for _ in self.taps)

    def start(self, images: Tensor) -> Any:
        """The small network's maps, and none yet to hand on."""
        x = images.flatten(1, -3)
        side = []
        for trunk, head in zip(self.trunk, self.heads, strict=True):
            x = trunk(x)
            side.append(head(x))
        return side, ()

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        side, maps = state
        at = self.out_indices.index(index)
        own = side[at]
        if own.shape[-2:] != feature.shape[-2:]:  # strides of some encoders are not whole
            own = F.interpolate(own, feature.shape[-2:], mode="bilinear")
        alpha = torch.sigmoid(self.blend[at])
        return side, (*maps, alpha * feature + (1 - alpha) * own)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


def _convolution(inputs: int, outputs: int, factor: int) -> nn.Sequential:
    # no batch statistics: batches are small, and a level may see a single position
    kernel = (
        strided(inputs, outputs, factor) if factor > 1 else nn.Conv2d(inputs, outputs, 3, padding=1)
    )
    return nn.Sequential(kernel, LayerNorm2d(outputs), nn.GELU())


def _factors(number: int) -> list[int]:
    """Prime factors, ascending: the strides of convolutions that make this one."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
