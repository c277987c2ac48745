"""DOFA, the Dynamic One-For-All model (arXiv 2403.15356): a masked autoencoder whose patch
embedding is made from the bands' wavelengths, so that it takes bands of any sensor.

torchgeo's weights have no norm after the last block (a classifier brings its own, after pooling),
so the last map is that block's output.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import Tokens
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.pretrained import published_state
from geotune.backbones.torchgeo.vit_utils import channel_ids, run_blocks
from geotune.backbones.weights import load_state

RADAR = {"VV": 5.405, "VH": 5.405}
"""DOFA's code has Sentinel-1's frequency in GHz where other bands have micrometres."""

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

    tokens = Tokens(prefix=1)

    def __init__(self, model: nn.Module, request: BackboneSpec, **kwargs: Any) -> None:
        encoder: Any = model
        super().__init__(model, request, size_divisor=int(encoder.patch_size), **kwargs)
        self.wavelengths_um = channel_ids(request, RADAR, scale=1)
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
        place = resample_abs_pos_embed(model.pos_embed, list(grid))
        first = (model.cls_token + place[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x + place[:, 1:]], dim=1)
        return run_blocks(x, self.blocks, None, grid, emit, out_indices)


def dofa_backbone(request: BackboneSpec) -> DofaBackbone:
    """Build a DOFA encoder; `weights` is a checkpoint as torchgeo publishes it."""
    try:
        from torchgeo.models import DOFA
    except ImportError as error:
        raise request.not_installed(error) from error
    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options)
    channel_ids(request, RADAR, scale=1)  # bands are refused before weights are fetched
    shape: dict[str, Any] = {**SHAPES[request.model]}
    model = DOFA(**shape, num_classes=0)
    del model.fc_norm  # it comes after pooling, and no weights of it are published
    source = None
    if request.loads_weights:
        state, source = published_state(request, facts.weights)
        load_state(model, state, source, request.name)
    return DofaBackbone(model, request, licence=facts.licence, source=source)
