"""Methods that train some of the backbone's own parameters and put nothing in."""

from __future__ import annotations

from collections.abc import Collection

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.base import Encoder, Method
from geotune.methods.core.gradient_check import dead_parameters
from geotune.methods.core.inserted import freeze
from geotune.methods.core.reader import SelectedFeatures


def train_subset(backbone: Backbone, method: Method, names: Collection[str]) -> Encoder:
    """The encoder in which those parameters of `backbone.model` train, and no others.

    What no output depends on (a pooling head's norm, say) stays as it is. Raises `GeotuneError`
    where nothing is left.
    """
    freeze(backbone)
    for name, parameter in backbone.model.named_parameters():
        if name in names and parameter.is_floating_point():
            parameter.requires_grad_(True)
    levels = SelectedFeatures(backbone)
    encoder = Encoder(backbone, levels, method, backbone_frozen=False)
    parameters = dict(encoder.named_parameters())
    for name in dead_parameters(encoder):
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise GeotuneError(
            f"{method.name} on {backbone.name}: the model has no such parameter that could change "
            "the output; choose another method"
        )
    return encoder
