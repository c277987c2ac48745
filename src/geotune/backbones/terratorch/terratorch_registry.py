"""Any other backbone of TerraTorch's registry, built and run as TerraTorch does it.

Taps are the maps that the model returns, fine to coarse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import canonical
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import load_state, quiet_hub, read_state
from geotune.errors import GeotuneError

PAD_TO = 32  # a multiple of every stride there
_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
_SWIN = ModelInfo(
    paper="Prithvi's Swin form in TerraTorch, no paper",
    licence="no weights are published",
    bands=_BANDS,
)
MODELS: dict[str, ModelInfo] = {
    "prithvi_swin_B": _SWIN,
    "prithvi_swin_L": _SWIN,
    "UNet": ModelInfo(
        paper="U-Net, arXiv 1505.04597",
        licence="no weights are published",
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {}
"""What a model is built with beside its bands: all as TerraTorch has it."""

_TERRATORCH_NAMES = {
    **{"B01": "COASTAL_AEROSOL", "B02": "BLUE", "B03": "GREEN", "B04": "RED"},
    **{"B05": "RED_EDGE_1", "B06": "RED_EDGE_2", "B07": "RED_EDGE_3", "B08": "NIR_BROAD"},
    **{"B8A": "NIR_NARROW", "B09": "WATER_VAPOR", "B10": "CIRRUS", "B11": "SWIR_1"},
    "B12": "SWIR_2",
}
_CANNOT: tuple[tuple[str, str], ...] = (
    ("_tim", "makes up other modalities at random in each pass; take the name without _tim"),
    ("_tokenizer_", "is half of an image compressor; take terratorch/terramind_v1_base or its kin"),
    ("dinov3_", "is fetched as code from GitHub; take one of timm's, such as timm/{dinov3}"),
    ("IdentityBackbone", "has no weights"),
    ("convnext", "fails in TerraTorch, which normalises the wrong dimension; take timm/{name}"),
)
"""Parts of names in TerraTorch's registry, and why geotune does not take them."""


class RegistryBackbone(Backbone):
    """A model that TerraTorch builds, behind geotune's contract."""

    def __init__(self, model: nn.Module, request: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, request, size_divisor=PAD_TO, **kwargs)
        training = self.training
        self.eval()  # running statistics stand still
        try:
            with torch.no_grad():
                example = self.example(2 * PAD_TO, 3 * PAD_TO)["images"]
                # told apart on an oblong image, once: on a square one they can look alike
                self._channels_last = [_is_channels_last(f, example) for f in self._run(example)]
            self.taps = self.find_taps([f"output{i}" for i in range(len(self._channels_last))])
        except Exception as error:
            raise GeotuneError(
                f"backbone.name {self.name}: cannot be used on images of any size "
                f"({type(error).__name__}: {str(error)[:200]}); choose another model"
            ) from error
        self.train(training)
        self.fingerprint = fingerprint(model)

    @property
    def blocks(self) -> list[nn.Module]:
        """None: the outputs are not known to be those of modules."""
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
        """What the model gives for images `(B, C, H, W)`."""
        model: Any = self.model
        output = model(images)
        features: list[Tensor] = list(output) if isinstance(output, list | tuple) else [output]
        if hasattr(model, "prepare_features_for_image_model"):
            features = list(model.prepare_features_for_image_model(features))
        return features


def _is_channels_last(feature: Tensor, images: Tensor) -> bool:
    """Whether a map is `(B, h, w, C)` and not `(B, C, h, w)`, by the shape of its image."""
    height, width = images.shape[-2:]
    if feature.ndim == 4:
        if feature.shape[2] * width == feature.shape[3] * height:
            return False
        if feature.shape[1] * width == feature.shape[2] * height:
            return True
    raise ValueError(f"gives {tuple(feature.shape)} for images {tuple(images.shape)}")


def names() -> list[str]:
    """Names of TerraTorch's own backbones."""
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    return [*TERRATORCH_BACKBONE_REGISTRY]


def knows(name: str) -> bool:
    """Whether TerraTorch can build a name, timm's among them."""
    from terratorch.registry import BACKBONE_REGISTRY

    return name in BACKBONE_REGISTRY


def registry_backbone(request: BackboneSpec) -> RegistryBackbone:
    """Build any backbone of TerraTorch's registry; `weights` is a state dict of that module.

    Raises `GeotuneError` for what gives no maps, and for what geotune has under a better name.
    """
    _refuse(request)
    request.allow_only()
    source, note = None, ""
    if request.weights is not None:
        model = _build(request, pretrained=False)
        load_state(model, read_state(request.weights), str(request.weights), request.name)
        source = str(request.weights)
        note = "the weights' bands are taken to be those of backbone.bands, in that order"
    elif request.pretrained:
        if request.model in MODELS:
            raise GeotuneError(
                f"backbone.name {request.name}: no pretrained weights are published; give a local "
                "file with backbone.weights=FILE, or ask for random weights with "
                "backbone.pretrained=false"
            )
        model = _build(request, pretrained=True)
        source = "as TerraTorch fetches them"
        note = "TerraTorch fitted the weights to the bands: one it does not know starts at random"
    else:
        model = _build(request, pretrained=False)
    backbone = RegistryBackbone(model, request, licence="not stated", source=source)
    backbone.notes = (note,) if note else ()
    return backbone


def _refuse(request: BackboneSpec) -> None:
    import timm

    name = request.model.removeprefix("timm_").removeprefix("terratorch_")
    if name in names():
        for part, reason in _CANNOT:
            if part in name:
                text = reason.format(name=name, dinov3="vit_small_patch16_dinov3")
                raise GeotuneError(f"backbone.name {request.name}: {text}")
    elif name not in MODELS and timm.is_model(name):
        raise GeotuneError(
            f"backbone.name {request.name}: is one of timm's; its name is timm/{name}"
        )


def _build(request: BackboneSpec, *, pretrained: bool) -> nn.Module:
    from terratorch.registry import BACKBONE_REGISTRY

    known = [_TERRATORCH_NAMES.get(canonical(band), band) for band in request.bands]
    options = {**_bands_option(request.model, known), **OPTIONS.get(request.model, {})}
    if pretrained:
        options["pretrained"] = True
    try:
        with quiet_hub():
            model: nn.Module = BACKBONE_REGISTRY.build(request.model, **options)
    except Exception as error:
        raise GeotuneError(
            f"backbone.name {request.name}: TerraTorch cannot build it "
            f"({type(error).__name__}: {str(error)[:200]})"
            + ("; without internet, give backbone.weights=FILE" if pretrained else "")
        ) from error
    return model


def _bands_option(name: str, bands: Sequence[str]) -> dict[str, Any]:
    """How the bands are said to this model."""
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
