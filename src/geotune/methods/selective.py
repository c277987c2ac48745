"""Methods that train a subset of the backbone's own parameters and insert nothing.

    full      all parameters
    frozen    none; with the linear decoder this is linear probing
    bitfit    b in y = W x + b (BitFit, arXiv 2106.10199)
    norm      w and b in y = w (x - mean) / std + b (arXiv 2003.00152 for batch norm); running
              statistics stay fixed
    partial   the last blocks; activations before them are not stored

Parameters that no output depends on, such as the norm of an unused pooling head, stay frozen.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import (
    BitFitOptions,
    FrozenOptions,
    FullOptions,
    NormOptions,
    PartialOptions,
)
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import freeze_dead_parameters
from geotune.methods.core.injection import freeze, require_blocks
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.reader import SelectedFeatures

_NORM_TYPES = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.RMSNorm)
_NORM_SUFFIXES = ("layernorm", "rmsnorm", "layernorm2d")
_BIAS_NAMES = ("bias", "q_bias", "v_bias", "in_proj_bias")


class Full(FullOptions, Method):
    """Every parameter that can change the output trains."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` if the backbone is frozen already."""
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise GeotuneError(
                f"full on {backbone.name}: another method has frozen this backbone; build it again",
                code="backbone-already-adapted",
                key="method.kind",
            )
        reader = SelectedFeatures(backbone)
        encoder = Encoder(backbone, reader, self, backbone_frozen=False, backbone_trains=True)
        freeze_dead_parameters(encoder)
        return encoder


class Frozen(FrozenOptions, Method):
    """Only the decoder (and the stem) train; with the linear decoder: linear probing."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        freeze(backbone)
        return Encoder(backbone, SelectedFeatures(backbone), self, backbone_frozen=True)


class BitFit(BitFitOptions, Method):
    """Only the bias terms of the backbone train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` if the backbone has no biases."""
        parameters = backbone.model.named_parameters()
        biases = {name for name, _ in parameters if name.rsplit(".", 1)[-1] in _BIAS_NAMES}
        return train_subset(backbone, self, biases)


class Norm(NormOptions, Method):
    """Only the scales and shifts of the backbone's normalisation layers train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` if the backbone has no normalisation."""
        names = {
            f"{name}.{parameter}"
            for name, module in backbone.model.named_modules()
            if isinstance(module, _NORM_TYPES)
            or type(module).__name__.lower().endswith(_NORM_SUFFIXES)
            for parameter, _ in module.named_parameters(recurse=False)
        }
        return train_subset(backbone, self, names)


class Partial(PartialOptions, Method):
    """Only the last blocks of the backbone train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` if the backbone has fewer blocks."""
        require_blocks(backbone, "partial")
        depth = len(backbone.blocks)
        if self.blocks > depth:
            problem = f"{backbone.name} has {depth} blocks; choose at most {depth}"
            raise option_error("blocks", self.blocks, f"{problem}, or method.kind=full")
        last = {id(p) for block in backbone.blocks[-self.blocks :] for p in block.parameters()}
        names = {name for name, p in backbone.model.named_parameters() if id(p) in last}
        return train_subset(backbone, self, names)


def train_subset(backbone: Backbone, method: Method, names: Collection[str]) -> Encoder:
    """Build an encoder in which only these parameters of `backbone.model` train.

    Raises `GeotuneError` if none of them can change the output.
    """
    freeze(backbone)
    for name, parameter in backbone.model.named_parameters():
        if name in names and parameter.is_floating_point():
            parameter.requires_grad_(True)
    encoder = Encoder(backbone, SelectedFeatures(backbone), method, backbone_frozen=False)
    freeze_dead_parameters(encoder)
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise GeotuneError(
            f"{method.name} on {backbone.name}: the model has no such parameter that could change "
            "the output; choose another method",
            code="method-unsupported",
            key="method.kind",
        )
    return encoder
