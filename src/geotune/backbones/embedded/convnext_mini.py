"""A small ConvNeXt (arXiv 2201.03545) whose pretrained weights are part of the package.

Distilled from Galileo-nano and MobileNetV2 on satellite and aerial imagery by
`scripts/pretrain_convnext_mini.py`. `convnext_mini.md` is its model card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from geotune.backbones.bands import match_bands
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.timm import TimmBackbone
from geotune.backbones.weights import load_weights, read_state_dict

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12", "grey")
"""Bands of Sentinel-2, and `grey` for panchromatic, thermal and other single-band images."""

WEIGHTS = Path(__file__).with_name("convnext_mini.safetensors")
LICENCE = "Apache-2.0 (geotune)"
MODELS: dict[str, ModelInfo] = {
    "convnext_mini": ModelInfo(
        paper="A ConvNet for the 2020s, arXiv 2201.03545",
        licence=LICENCE,
        weights="in the package",
        bands=BANDS,
        supported_options=("new_bands",),
    )
}


def build_network(in_chans: int = len(BANDS)) -> nn.Module:
    """The network without weights: 2.2 million parameters, maps of strides 4, 8, 16 and 32."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(
        in_chans=in_chans,
        num_classes=0,
        depths=(2, 2, 4, 2),
        dims=(64, 96, 160, 224),
        conv_mlp=True,
        ls_init_value=None,
    )


def embedded_backbone(spec: BackboneSpec) -> TimmBackbone:
    """Build `convnext_mini`; `weights` replaces those of the package.

    Images are normalised by the statistics of the training data, as in pretraining. Raises
    `GeotuneError` for another name and for unknown bands.
    """
    if spec.model not in MODELS:
        raise spec.unknown_model_error(MODELS)
    spec.allow_only(*MODELS[spec.model].supported_options)
    match = match_bands(spec, BANDS)
    model: Any = build_network()
    source: str | None = None
    if spec.loads_weights:
        path = WEIGHTS if spec.weights is None else spec.weights
        source = "geotune" if spec.weights is None else str(path)
        state = {key: tensor.float() for key, tensor in read_state_dict(path).items()}
        load_weights(model, state, source, spec.name)
    patches = model.stem[0]
    patches.weight = nn.Parameter(match.fit_weight(patches.weight.detach()))
    patches.in_channels = len(spec.bands)
    backbone = TimmBackbone(model, spec, size_divisor=32, licence=LICENCE, source=source)
    backbone.notes = (match.note,) if match.note and match.columns.count(None) else ()
    return backbone
