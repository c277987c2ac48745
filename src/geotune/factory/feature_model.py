"""Models that give features instead of predictions: one layer of a backbone or of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.reader import SelectedFeatures
from geotune.methods.selective import Frozen
from geotune.model import Model
from geotune.types import Normalization, Tap
from geotune.utils.precision import FULL, autocast

Layer = int | str
"""Index of a layer, counted from the end if negative, or its name."""


@dataclass(frozen=True)
class FeatureModel:
    """Maps raw images `(B, C, H, W)`, NaN where invalid, to the features `(B, D, h, w)` of a layer.

    Attributes:
        model: normalisation and encoder.
        index: of the layer among the encoder's maps.
        tap: name, channels and stride of the layer.
        precision: in what the encoder computes, see `utils.precision`.
    """

    model: Model
    index: int
    tap: Tap
    precision: str = FULL

    @property
    def backbone(self) -> Backbone:
        """The backbone."""
        return self.model.encoder.backbone

    @property
    def patch(self) -> float:
        """Side in pixels of the backbone's finest patches, which windows should not cut."""
        return 1.0 if self.backbone.tiled else min(tap.stride for tap in self.backbone.taps)

    def __call__(
        self, images: Tensor, *, time: Tensor | None = None, location: Tensor | None = None
    ) -> Tensor:
        """The features, in float32; the sides of the images are multiples of `size_divisor`."""
        with autocast(images.device, self.precision):
            maps, _ = self.model.encode(images, time=time, location=location)
        return maps.maps[self.index].float()


def layers(encoder: Encoder) -> tuple[Tap, ...]:
    """The layers that `feature_model` can give.

    Every block of a backbone whose features the method passes on; the output maps of a side
    network.
    """
    reader = encoder.reader
    return encoder.backbone.taps if isinstance(reader, SelectedFeatures) else reader.taps


def feature_model(model: Model, layer: Layer = -1) -> FeatureModel:
    """The features of a trained model, from a layer of `layers`, by default the last.

    An update of the backbone's weights is merged into them. Raises `GeotuneError` for an unknown
    layer.
    """
    encoder = model.encoder
    index = find_layer(layers(encoder), layer)
    tap = layers(encoder)[index]
    if encoder.can_merge:
        encoder.merge()
    if not isinstance(encoder.reader, SelectedFeatures):
        offset = len(encoder.taps) - len(encoder.reader.taps)  # the stem's maps come first
        return FeatureModel(model.eval(), offset + index, tap)
    reader = SelectedFeatures(encoder.backbone, [index])
    alone = Encoder(encoder.backbone, reader, backbone_frozen=True)
    changed = Model(_normalization(model), alone, nn.Identity())
    return FeatureModel(changed.eval(), 0, tap)


def backbone_features(
    backbone: Backbone, normalization: Normalization, layer: Layer = -1
) -> FeatureModel:
    """The features of a frozen backbone. Raises `GeotuneError` for an unknown layer."""
    return feature_model(Model(normalization, Frozen().attach(backbone), nn.Identity()), layer)


def find_layer(taps: tuple[Tap, ...], layer: Layer) -> int:
    """Index of a layer by number or name. Raises `GeotuneError` if there is none."""
    names = [tap.name for tap in taps]
    if isinstance(layer, str) and layer in names:
        return names.index(layer)
    try:
        return range(len(taps))[int(layer)]
    except (ValueError, IndexError) as error:
        listed = ", ".join(f"{i} ({tap.name}, stride {tap.stride:g})" for i, tap in enumerate(taps))
        raise GeotuneError(
            f"layer: found {layer}, expected one of {listed}; a negative number counts from the "
            "end",
            code="option-invalid",
        ) from error


def _normalization(model: Model) -> Normalization:
    offset, scale, fill = (x.tolist() for x in (model.offset, model.scale, model.fill))
    raw = tuple(f * s + o for f, s, o in zip(fill, scale, offset, strict=True))
    return Normalization(model.encoder.backbone.bands, tuple(offset), tuple(scale), raw)
