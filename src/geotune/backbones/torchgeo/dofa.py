"""DOFA, the Dynamic One-For-All model (arXiv 2403.15356): a masked autoencoder whose patch
embedding is generated from the bands' wavelengths, so that it accepts bands of any sensor.

torchgeo's weights have no norm after the last block (its classifier has one after pooling), so the
last map is that block's output.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit, fingerprint, run_blocks
from geotune.backbones.blocks import TokenLayout, after_class_token
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.channel_ids import channel_ids
from geotune.backbones.weights import load_published_weights

RADAR = {"VV": 5.405, "VH": 5.405}
"""As in DOFA's code: the frequency in GHz; for other bands the wavelength in micrometres."""

SHAPES: dict[str, dict[str, int]] = {
    "dofa_small_patch16_224": {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "dofa_base_patch16_224": {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "dofa_large_patch16_224": {"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16},
    "dofa_huge_patch14_224": {"patch_size": 14, "embed_dim": 1280, "depth": 32, "num_heads": 16},
}
_HUB = "https://huggingface.co/torchgeo/dofa/resolve/b8db318b64a90b9e085ec04ba8851233c5893666"
_FILES = {
    "dofa_base_patch16_224": "dofa_base_patch16_224-a0275954.pth",
    "dofa_large_patch16_224": "dofa_large_patch16_224-0ff904d3.pth",
}
MODELS: dict[str, ModelInfo] = {
    name: ModelInfo(
        paper="DOFA, arXiv 2403.15356",
        licence="CC-BY-4.0 (torchgeo's documentation)"
        if name in _FILES
        else "no weights are published",
        weights=f"{_HUB}/{_FILES[name]}" if name in _FILES else "",
        supported_options=("wavelengths",),
    )
    for name in SHAPES
}


class DofaBackbone(Backbone):
    """DOFA's encoder."""

    token_layout = TokenLayout(prefix=1)

    def __init__(self, model: nn.Module, spec: BackboneSpec, **kwargs: Any) -> None:
        encoder: Any = model
        super().__init__(model, spec, size_divisor=int(encoder.patch_size), **kwargs)
        self.wavelengths_um = channel_ids(spec, RADAR, scale=1)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        waves = torch.tensor(self.wavelengths_um, device=images.device)
        x, _embedded = model.patch_embed(images, waves)
        grid = images.shape[-2] // self.size_divisor, images.shape[-1] // self.size_divisor
        position = resample_abs_pos_embed(model.pos_embed, list(grid))
        first = (model.cls_token + position[:, :1]).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x + position[:, 1:]], dim=1)
        to_map = partial(after_class_token, grid=grid)
        return run_blocks(x, self.blocks, None, to_map, emit, out_indices)[:, :1]


def dofa_backbone(spec: BackboneSpec) -> DofaBackbone:
    """Build a DOFA encoder; `weights` is a checkpoint published by torchgeo."""
    with spec.imports_provider():
        from torchgeo.models import DOFA
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options)
    channel_ids(spec, RADAR, scale=1)  # check bands before downloading weights
    shape: dict[str, Any] = {**SHAPES[spec.model]}
    model = DOFA(**shape, num_classes=0)
    del model.fc_norm  # applied after pooling; its weights are not published
    source = load_published_weights(model, spec, info.weights)
    return DofaBackbone(model, spec, licence=info.licence, source=source)
