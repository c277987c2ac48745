"""Scaling in the subspaces of a weight (decomposition view of tuning, arXiv 2407.05417).

    ssl    y = W diag(a) x + b              scales the inputs of a layer
    ssb    y = diag(c) W diag(a) x + b      scales inputs and outputs

W and b stay frozen; a and c start at one. By default in the layers that `lora` updates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import SsbOptions, SslOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.layer_updates import (
    LayerUpdate,
    merge_updates,
    per_channel,
    update_layers,
)
from geotune.methods.core.target_layers import Layer, target_layers


class Ssl(SslOptions, Method):
    """Scales the inputs of the backbone's layers."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        layers = target_layers(backbone, self.targets, method="ssl")
        update_layers(backbone, layers, lambda _, layer: SubspaceScaling(layer, outputs=False))
        return checked_encoder(backbone, self, merge=merge_updates)


class Ssb(SsbOptions, Method):
    """Scales the inputs and outputs of the backbone's layers."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        layers = target_layers(backbone, self.targets, method="ssb")
        update_layers(backbone, layers, lambda _, layer: SubspaceScaling(layer, outputs=True))
        return checked_encoder(backbone, self, merge=merge_updates)


class SubspaceScaling(LayerUpdate):
    """`diag(c) W diag(a) x + b`, or without c."""

    def __init__(self, layer: Layer, *, outputs: bool) -> None:
        super().__init__()
        self.groups = getattr(layer, "groups", 1)
        self.a = nn.Parameter(torch.ones(self.groups * layer.weight.shape[1]))
        self.c = nn.Parameter(torch.ones(len(layer.weight))) if outputs else None

    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """See `LayerUpdate.forward`."""
        y: Tensor = layer(x * per_channel(self.a, layer))
        if self.c is None:
            return y
        product = y if layer.bias is None else y - per_channel(layer.bias, layer)
        return y + per_channel(self.c - 1, layer) * product  # exactly y at the start

    def merge(self, layer: Layer) -> None:
        """See `LayerUpdate.merge`."""
        weight = layer.weight
        a = self.a.reshape(self.groups, 1, -1).expand(-1, len(weight) // self.groups, -1)
        scale = a.flatten(0, 1) if self.c is None else a.flatten(0, 1) * self.c[:, None]
        weight.mul_(scale.reshape(*scale.shape, *(1,) * (weight.ndim - 2)))
