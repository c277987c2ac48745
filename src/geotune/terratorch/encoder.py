"""An encoder of geotune with the interface of TerraTorch's backbones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from geotune.backbones.create import backbone, model_info
from geotune.backbones.model_info import ModelInfo
from geotune.config.backbone_options import BackboneOptions
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.registry import METHODS
from geotune.terratorch.names import OPTIONS

RENAMED = {**OPTIONS, "model_bands": "bands", "in_chans": "bands", "in_channels": "bands"}
"""TerraTorch's names of geotune's options."""
IGNORED = ("padding", "img_size", "encoder_only")
"""Options that TerraTorch reads itself, or that geotune's backbones do without."""


class TerraTorchEncoder(nn.Module):
    """Maps images to a list of feature maps, as TerraTorch's backbones do.

    Args:
        encoder: a backbone with its method.
        pretrained: the parameters that the backbone had before the method was attached.

    Attributes:
        out_channels: of each map.
    """

    def __init__(self, encoder: Encoder, pretrained: list[nn.Parameter]) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = [tap.channels for tap in encoder.taps]
        self._pretrained = {id(parameter) for parameter in pretrained}

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        temporal_coords: Tensor | None = None,
        location_coords: Tensor | None = None,
        **_: Any,
    ) -> list[Tensor]:
        """Feature maps `(B, C_i, h_i, w_i)` of normalised images `(B, C, [T,] H, W)`.

        Args:
            images: one tensor, or one of each modality.
            temporal_coords: `(B, T, 2)`, year and day of the year from 0.
            location_coords: `(B, 2)`, latitude and longitude.
        """
        time = None
        if temporal_coords is not None:
            time = temporal_coords + temporal_coords.new_tensor([0, 1])  # geotune's days start at 1
        location = None if location_coords is None else location_coords.flip(-1)
        return list(self.encoder(images, time=time, location=location).maps)

    def freeze(self) -> None:
        """Freeze the backbone's own weights (`freeze_backbone`); the method's modules still train.

        Most methods have frozen them already. Without this, TerraTorch would freeze the modules of
        the method too.
        """
        for parameter in self.encoder.backbone.parameters():
            if id(parameter) in self._pretrained:
                parameter.requires_grad_(False)
        self.encoder.backbone_trains = False  # nor do running statistics change
        self.encoder.train(self.training)


def build_encoder(method: str, name: str, options: Mapping[str, Any]) -> TerraTorchEncoder:
    """Build a backbone and attach a method.

    Args:
        method: a `kind` of `method` in recipes.
        name: of the backbone, in geotune's form.
        options: of backbone and method. The stem, which most decoders of TerraTorch do not expect,
            is off by default.

    Raises `GeotuneError` for unknown options and those that do not fit.
    """
    given = {RENAMED.get(key, key): value for key, value in options.items() if key not in IGNORED}
    known = BackboneOptions.model_fields.keys() - {"name"}
    values = {key: given.pop(key) for key in [*given] if key in known}
    values["bands"] = _bands(values.get("bands"), given, model_info(name))
    values["metadata"] = values.get("metadata") or ()
    attached = METHODS[method].load()(**{"stem_width": 0, **given})
    network = backbone(name, **values)
    for note in network.notes:
        logging.getLogger("geotune").warning("%s: %s", name, note)
    pretrained = list(network.parameters())
    encoder = attached.attach(network)
    if encoder.reader.calibration_samples:
        raise GeotuneError(
            "these options have to be fitted to images before the training "
            "(method.projection_init), which TerraTorch does not do; leave them at their defaults",
            code="method-option-invalid",
            key="method.projection_init",
        )
    return TerraTorchEncoder(encoder, pretrained)


def _bands(given: Any, rest: dict[str, Any], info: ModelInfo | None) -> Any:
    """The bands as geotune takes them; by default those of the pretraining, else three.

    `modalities` of TerraTorch is taken out of `rest`.
    """
    modalities = rest.pop("modalities", None)
    if modalities is not None and info is not None and info.modalities:
        chosen = given if isinstance(given, Mapping) else {}
        return {
            name: _names(chosen.get(name, info.modalities.get(name, ()))) for name in modalities
        }
    if isinstance(given, Mapping):
        return {name: _names(bands) for name, bands in given.items()}
    if isinstance(given, int):
        return given
    if given is not None:
        return _names(given)
    return info.bands if info is not None and info.bands else 3


def _names(bands: Any) -> tuple[str, ...]:
    """Names of bands that may be members of TerraTorch's enumerations."""
    return tuple(str(getattr(band, "value", band)) for band in bands)
