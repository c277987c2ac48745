"""Other backbones of TerraTorch's registry, built and run by TerraTorch.

Taps are the maps that the model returns, fine to coarse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import canonical_band
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import load_weights, not_published_error, read_state_dict
from geotune.errors import GeotuneError
from geotune.hub.connection import quiet_hub

SIZE_DIVISOR = 32  # a multiple of all their strides
_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
_SWIN = ModelInfo(
    paper="Prithvi with a Swin encoder, in TerraTorch, no paper",
    licence="no weights are published",
    bands=_BANDS,
)
MODELS: dict[str, ModelInfo] = {
    "prithvi_swin_B": _SWIN,
    "prithvi_swin_L": _SWIN,
    "UNet": ModelInfo(paper="U-Net, arXiv 1505.04597", licence="no weights are published"),
}
OPTIONS: dict[str, dict[str, Any]] = {}
"""Further constructor arguments by model; TerraTorch's defaults for all others."""

_TERRATORCH_NAMES = {
    **{"B01": "COASTAL_AEROSOL", "B02": "BLUE", "B03": "GREEN", "B04": "RED"},
    **{"B05": "RED_EDGE_1", "B06": "RED_EDGE_2", "B07": "RED_EDGE_3", "B08": "NIR_BROAD"},
    **{"B8A": "NIR_NARROW", "B09": "WATER_VAPOR", "B10": "CIRRUS", "B11": "SWIR_1"},
    "B12": "SWIR_2",
}
_UNSUPPORTED: tuple[tuple[str, str], ...] = (
    ("_tim", "generates other modalities randomly in each pass; use the name without _tim"),
    (
        "_tokenizer_",
        "is part of an image tokenizer; use a model such as terratorch/terramind_v1_base",
    ),
    ("dinov3_", "downloads code from GitHub; use a timm model such as timm/{dinov3}"),
    ("IdentityBackbone", "has no weights"),
    ("convnext", "fails in TerraTorch, which normalises the wrong dimension; use timm/{name}"),
)
"""Substrings of registry names, and why these models are not supported."""


class RegistryBackbone(Backbone):
    """A model built by TerraTorch."""

    def __init__(self, model: nn.Module, spec: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, spec, size_divisor=SIZE_DIVISOR, **kwargs)
        training = self.training
        self.eval()  # keeps running statistics unchanged
        try:
            with torch.no_grad():
                example = self.example(2 * SIZE_DIVISOR, 3 * SIZE_DIVISOR)["images"]
                # found with an oblong image; on a square one the layout can be ambiguous
                self._channels_last = [_is_channels_last(f, example) for f in self._run(example)]
            self.taps = self.find_taps([f"output{i}" for i in range(len(self._channels_last))])
        except Exception as error:
            raise GeotuneError(
                f"backbone.name {self.name}: does not support images of any size "
                f"({type(error).__name__}: {str(error)[:200]}); choose another model",
                code="backbone-unusable",
                key="backbone.name",
            ) from error
        self.train(training)
        self.fingerprint = fingerprint(model)

    @property
    def blocks(self) -> list[nn.Module]:
        """Empty: the modules behind the outputs are unknown."""
        return []

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        maps = [
            feature.permute(0, 3, 1, 2) if last else feature
            for feature, last in zip(self._run(images), self._channels_last, strict=True)
        ]
        maps.sort(key=lambda feature: -feature.shape[-1])  # fine to coarse
        for index, feature in enumerate(maps):
            if index in out_indices:
                emit(index, feature)
        return None

    def _run(self, images: Tensor) -> list[Tensor]:
        """The model's maps of images `(B, C, H, W)`."""
        model: Any = self.model
        output = model(images)
        features: list[Tensor] = list(output) if isinstance(output, list | tuple) else [output]
        if hasattr(model, "prepare_features_for_image_model"):
            features = list(model.prepare_features_for_image_model(features))
        return features


def _is_channels_last(feature: Tensor, images: Tensor) -> bool:
    """Whether a map is `(B, h, w, C)` rather than `(B, C, h, w)`, by its aspect ratio."""
    height, width = images.shape[-2:]
    if feature.ndim == 4:
        if feature.shape[2] * width == feature.shape[3] * height:
            return False
        if feature.shape[1] * width == feature.shape[2] * height:
            return True
    raise ValueError(f"returns {tuple(feature.shape)} for images {tuple(images.shape)}")


def names() -> list[str]:
    """Names of the backbones in TerraTorch's own registry."""
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    return [*TERRATORCH_BACKBONE_REGISTRY]


def knows(name: str) -> bool:
    """Whether TerraTorch can build this model, including those of timm."""
    from terratorch.registry import BACKBONE_REGISTRY

    return name in BACKBONE_REGISTRY


def registry_backbone(spec: BackboneSpec) -> RegistryBackbone:
    """Build any backbone of TerraTorch's registry; `weights` is a state dict of its module.

    Raises `GeotuneError` for models without maps and those that another provider supports better.
    """
    _refuse(spec)
    spec.allow_only()
    source, note = None, ""
    if spec.weights is not None:
        model = build_model(spec, pretrained=False)
        load_weights(model, read_state_dict(spec.weights), str(spec.weights), spec.name)
        source = str(spec.weights)
        note = "the bands of the weights are assumed to be backbone.bands, in that order"
    elif spec.pretrained:
        if spec.model in MODELS:
            raise not_published_error(spec)
        model = build_model(spec, pretrained=True)
        source = "downloaded by TerraTorch"
        note = "TerraTorch adapted the weights to the bands: unknown bands are initialised randomly"
    else:
        model = build_model(spec, pretrained=False)
    backbone = RegistryBackbone(model, spec, licence="not stated", source=source)
    backbone.notes = (note,) if note else ()
    return backbone


def _refuse(spec: BackboneSpec) -> None:
    import timm

    name = spec.model.removeprefix("timm_").removeprefix("terratorch_")
    if name in names():
        for part, reason in _UNSUPPORTED:
            if part in name:
                text = reason.format(name=name, dinov3="vit_small_patch16_dinov3")
                raise GeotuneError(
                    f"backbone.name {spec.name}: {text}",
                    code="backbone-unusable",
                    key="backbone.name",
                )
    elif name not in MODELS and timm.is_model(name):
        raise GeotuneError(
            f"backbone.name {spec.name}: this is a timm model; use timm/{name}",
            code="backbone-unknown",
            key="backbone.name",
        )


def build_model(spec: BackboneSpec, *, pretrained: bool) -> nn.Module:
    """Build a model of the registry for the bands of `spec`."""
    from terratorch.registry import BACKBONE_REGISTRY

    known = [_TERRATORCH_NAMES.get(canonical_band(band), band) for band in spec.bands]
    options = {**_bands_option(spec.model, known), **OPTIONS.get(spec.model, {})}
    if pretrained:
        options["pretrained"] = True
    try:
        with quiet_hub():
            model: nn.Module = BACKBONE_REGISTRY.build(spec.model, **options)
    except Exception as error:
        raise GeotuneError(
            f"backbone.name {spec.name}: TerraTorch cannot build it "
            f"({type(error).__name__}: {str(error)[:200]})"
            + ("; without internet access, set backbone.weights=FILE" if pretrained else ""),
            code="backbone-unusable",
            key="backbone.name",
        ) from error
    return model


def _bands_option(name: str, bands: Sequence[str]) -> dict[str, Any]:
    """The constructor argument for the bands of this model."""
    parameters = inspect.signature(_constructor(name)).parameters
    for option in ("model_bands", "bands"):
        if option in parameters:
            return {option: list(bands)}
    return {"in_channels" if "in_channels" in parameters else "in_chans": len(bands)}


def _constructor(name: str) -> Callable[..., Any]:
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY
    from timm.models import model_entrypoint

    if name in TERRATORCH_BACKBONE_REGISTRY:
        constructor: Callable[..., Any] = TERRATORCH_BACKBONE_REGISTRY[name]
        return constructor
    return model_entrypoint(name)
