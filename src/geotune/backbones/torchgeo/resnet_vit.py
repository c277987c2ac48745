"""timm's ResNets and ViTs (arXiv 1512.03385, 2010.11929) with torchgeo's weights for satellite
images: SSL4EO-S12 and SSL4EO-L, SoftCon, DeCUR, FG-MAE, CLOSP, SatlasPretrain, SSL4Eco, Seasonal
Contrast and Geography-Aware Self-Supervised Learning."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.timm import TimmBackbone
from geotune.backbones.torchgeo.input_spec import apply_input_spec, match_input_bands
from geotune.backbones.torchgeo.weights_table import PUBLISHED_WEIGHTS
from geotune.backbones.weights import fill_missing_norm, load_weights, url_state_dict

MODELS: dict[str, ModelInfo] = {
    name: published.info
    for name, published in PUBLISHED_WEIGHTS.items()
    if published.network.startswith(("resnet", "vit"))
}


def resnet_vit_backbone(spec: BackboneSpec) -> TimmBackbone:
    """Build a ResNet or ViT; `weights` is a checkpoint published by torchgeo."""
    published = PUBLISHED_WEIGHTS[spec.model]
    spec.allow_only(*published.info.supported_options)
    match = match_input_bands(spec, published.images)
    vit = published.network.startswith("vit")
    options: dict[str, Any] = {"img_size": 224, "dynamic_img_size": True} if vit else {}
    model: Any = timm.create_model(
        published.network, in_chans=len(published.images.bands), num_classes=0, **options
    )
    source: str | None = None
    notes: tuple[str, ...] = ()
    if spec.loads_weights:
        state, source = url_state_dict(spec, published.info.weights)
        notes = fill_missing_norm(state, model)
        load_weights(model, state, source, spec.name)
    first = model.patch_embed.proj if vit else model.conv1
    first.weight = nn.Parameter(match.fit_weight(first.weight.detach()))
    first.in_channels = len(spec.bands)
    backbone = TimmBackbone(
        model,
        spec,
        size_divisor=int(model.patch_embed.patch_size[0]) if vit else 32,
        licence=published.info.licence,
        source=source,
    )
    apply_input_spec(backbone, published.images, match)
    backbone.notes += notes
    return backbone
