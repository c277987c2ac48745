r"""SLR, scaled low-rank adapters for a new sensor (CVPR Workshops 2024, "Parameter Efficient
Self-Supervised Geospatial Domain Adaptation").

    y = s_out * (W (s_in * x) + b + Up(Down(s_in * x)))      s_in, s_out: a factor per channel

      x --> s_in --+--> W, b (frozen) ----> + --> s_out --> y
                   \--> Down --> Up ------/

In every linear layer of the blocks (queries, keys and values as one layer, projection, MLP), and in
the patch embedding, where Down is a convolution of the patch's size and stride. Factors start at
one, Down is normal with variance 1 / inputs, Up starts at zero. The paper trains first by masked
reconstruction on unlabelled images of the new sensor.

Choices of ours: Down and Up have no bias, Down has the variance above, not 1, and Up in the patch
embedding is 1x1, so that the branch merges into the frozen layer; the paper's there is two strided
convolutions with output factors only, and norms train too. Models whose patch embedding is no
single convolution have none of these there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import SlrOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import zero_init
from geotune.methods.core.layer_updates import (
    LayerUpdate,
    merge_updates,
    per_channel,
    update_layers,
)
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.target_layers import Layer, target_layers, without_dead_layers


class Slr(SlrOptions, Method):
    """Scaled low-rank updates of the blocks' layers and of the patch embedding."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        layers = target_layers(
            backbone, self.targets, method="slr", all_linear=True, rank=self.rank
        )
        grouped = [name for name, layer in layers.items() if getattr(layer, "groups", 1) > 1]
        if grouped:
            raise option_error(
                "targets",
                ", ".join(self.targets or []),
                f"{grouped[0]} of {backbone.name} is a convolution in groups, into which the "
                "update would not merge; choose layers without groups",
            )
        if self.patch_embedding:
            layers = patch_embedding(backbone) | layers
        update_layers(backbone, layers, lambda _, layer: ScaledLowRank(layer, self.rank))
        return checked_encoder(backbone, self, merge=merge_updates)


def patch_embedding(backbone: Backbone) -> dict[str, Layer]:
    """Return the convolution outside the blocks that cuts the image into patches, by name."""
    side = round(backbone.taps[0].stride)
    inside = {layer for block in backbone.blocks for layer in block.modules()}
    found: dict[str, Layer] = {
        name: layer
        for name, layer in backbone.model.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer not in inside
        and layer.kernel_size == layer.stride == (side, side)
        and layer.groups == 1
    }
    return without_dead_layers(backbone, found)


class ScaledLowRank(LayerUpdate):
    """The formula above, of a linear layer or a convolution."""

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape[:2]
        self.scale_in = nn.Parameter(torch.ones(inputs))
        self.scale_out = nn.Parameter(torch.ones(outputs))
        self.down: Layer
        self.up: Layer
        if isinstance(layer, nn.Conv2d):
            settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            self.down = nn.Conv2d(inputs, rank, *settings, bias=False)  # type: ignore[arg-type]
            self.up = nn.Conv2d(rank, outputs, 1, bias=False)
        else:
            self.down = nn.Linear(inputs, rank, bias=False)
            self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.normal_(self.down.weight, std=self.down.weight[0].numel() ** -0.5)
        zero_init(self.up)

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """See `LayerUpdate.forward`."""
        scaled = x * per_channel(self.scale_in, layer)
        y: Tensor = layer(scaled) + self.up(self.down(scaled))
        return y * per_channel(self.scale_out, layer)

    def merge(self, layer: Layer) -> None:
        """See `LayerUpdate.merge`."""
        weight = layer.weight
        ones = (1,) * (weight.ndim - 2)
        product = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
        weight.add_(product.reshape(weight.shape))
        weight.mul_(self.scale_out.reshape(-1, 1, *ones) * self.scale_in.reshape(-1, *ones))
        if layer.bias is not None:
            layer.bias.mul_(self.scale_out)
