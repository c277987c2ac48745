"""Build torchgeo's backbones, by model name."""

from __future__ import annotations

from collections.abc import Callable

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo import croma, dofa, panopticon, resnet_vit, scalemae, swin

_FAMILIES: tuple[tuple[dict[str, ModelInfo], Callable[[BackboneSpec], Backbone]], ...] = (
    (dofa.MODELS, dofa.dofa_backbone),
    (croma.MODELS, croma.croma_backbone),
    (panopticon.MODELS, panopticon.panopticon_backbone),
    (scalemae.MODELS, scalemae.scalemae_backbone),
    (swin.MODELS, swin.swin_backbone),
    (resnet_vit.MODELS, resnet_vit.resnet_vit_backbone),
)
MODELS: dict[str, ModelInfo] = {
    name: info for family, _ in _FAMILIES for name, info in family.items()
}


def torchgeo_backbone(spec: BackboneSpec) -> Backbone:
    """Build a model such as `dofa_base_patch16_224`, or a network with the name of its weights,
    such as `resnet50_sentinel2_all_moco`. Raises `GeotuneError` for an unknown name."""
    for family, build in _FAMILIES:
        if spec.model in family:
            return build(spec)
    raise spec.unknown_model_error(MODELS)
