"""Replace linear layers and convolutions of a frozen backbone by updated ones, and merge them.

    y = update(layer, x)        layer: frozen, with weight W and bias b;  update: trains

Like HF peft's tuners, for updates that peft does not have. Each update is the attribute `part` of
the module that replaces its layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.core.fused_qkv import join_all_qkv
from geotune.methods.core.injection import InsertedPart, freeze, replace_module
from geotune.methods.core.target_layers import Layer


class LayerUpdate(nn.Module):
    """What trains in an updated layer.

    Attributes:
        decays: whether weight decay applies: not to factors of the pretrained weights, which it
            would shrink.
    """

    decays: ClassVar[bool] = True

    @abstractmethod
    def forward(self, layer: Layer, x: Tensor) -> Tensor:
        """Inputs of the frozen layer to its updated outputs, `(..., C)` or `(B, C, H, W)`."""

    def merge(self, layer: Layer) -> None:
        """Fold the update into weight and bias of the frozen layer, in place."""
        raise NotImplementedError


class UpdatedLayer(InsertedPart):
    """Replaces a layer: `part(inner, x)`."""

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """Same inputs and shapes as the frozen layer."""
        out: Tensor = self.part(self.inner, x, *inputs, **named)
        return out


def update_layers(
    backbone: Backbone,
    layers: Mapping[str, Layer],
    build: Callable[[str, Layer], LayerUpdate],
) -> None:
    """Freeze the backbone and replace layers by updated ones; `build` gets name and layer."""
    freeze(backbone)
    for name, layer in layers.items():
        replace_module(backbone, layer, UpdatedLayer(layer, build(name, layer)))


@torch.no_grad()
def merge_updates(model: nn.Module) -> None:
    """Fold all updates into their layers and restore those."""
    for name, module in list(model.named_modules()):
        if isinstance(module, UpdatedLayer):
            update: Any = module.part
            update.merge(module.inner)
            model.set_submodule(name, module.inner)
    join_all_qkv(model)


def per_channel(vector: Tensor, layer: Layer) -> Tensor:
    """A vector of channels in the shape that multiplies inputs or outputs of the layer."""
    return vector[:, None, None] if isinstance(layer, nn.Conv2d) else vector
