"""ResNets and vision transformers of timm (arXiv 1512.03385, 2010.11929) with the weights that
torchgeo offers for satellite images: SSL4EO-S12 and SSL4EO-L, SoftCon, DeCUR, FG-MAE, CLOSP,
SatlasPretrain, SSL4Eco, Seasonal Contrast and Geography-Aware Self-Supervised Learning."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.timm import TimmBackbone
from geotune.backbones.torchgeo.input_spec import describe, fit_images
from geotune.backbones.torchgeo.pretrained import published_state, without_norm
from geotune.backbones.torchgeo.weights_table import PUBLISHED
from geotune.backbones.weights import load_state

MODELS: dict[str, ModelInfo] = {
    name: published.facts
    for name, published in PUBLISHED.items()
    if published.network.startswith(("resnet", "vit"))
}


def resnet_vit_backbone(request: BackboneSpec) -> TimmBackbone:
    """Build a ResNet or ViT; `weights` is a checkpoint as torchgeo publishes it."""
    published = PUBLISHED[request.model]
    request.allow_only(*published.facts.supported_options)
    fit = fit_images(request, published.images)
    vit = published.network.startswith("vit")
    options: dict[str, Any] = {"img_size": 224, "dynamic_img_size": True} if vit else {}
    model: Any = timm.create_model(
        published.network, in_chans=len(published.images.bands), num_classes=0, **options
    )
    source: str | None = None
    notes: tuple[str, ...] = ()
    if request.loads_weights:
        state, source = published_state(request, published.facts.weights)
        notes = without_norm(state, model)
        load_state(model, state, source, request.name)
    first = model.patch_embed.proj if vit else model.conv1
    first.weight = nn.Parameter(fit.weight(first.weight.detach()))
    first.in_channels = len(request.bands)
    backbone = TimmBackbone(
        model,
        request,
        size_divisor=int(model.patch_embed.patch_size[0]) if vit else 32,
        licence=published.facts.licence,
        source=source,
    )
    describe(backbone, published.images, fit)
    backbone.notes += notes
    return backbone
