"""Panopticon (arXiv 2503.10845): a DINOv2 model for any set of optical and radar bands. Its patch
embedding attends over the bands, which are identified by wavelength or polarisation."""

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

# transmitted and received polarisation
_POLARISATIONS = ("VV", "VH", "HH", "HV")
RADAR = {
    f"{polarisation}{orbit}": -1.0 - 4 * i - j
    for i, orbit in enumerate(("", "_ASCENDING", "_DESCENDING"))
    for j, polarisation in enumerate(_POLARISATIONS)
}
"""Panopticon's channel ids of Sentinel-1's bands, for any orbit or a given one."""

SHAPES: dict[str, dict[str, int]] = {"panopticon_vitb14": {"attn_dim": 2304, "embed_dim": 768}}
PATCH = 14
_PRETRAINING_SIZE = 518  # of DINOv2, whose position embedding it uses
MODELS: dict[str, ModelInfo] = {
    "panopticon_vitb14": ModelInfo(
        paper="Panopticon, arXiv 2503.10845",
        licence="Apache-2.0 (torchgeo's documentation)",
        weights="https://huggingface.co/lewaldm/panopticon/resolve/"
        "c8c2bb9555819e8b2bcedf5b3b00e3bf531554e7/panopticon_vitb14_teacher.pth",
        supported_options=("wavelengths",),
    )
}


class PanopticonBackbone(Backbone):
    """Panopticon's encoder."""

    token_layout = TokenLayout(prefix=1)

    def __init__(self, model: nn.Module, spec: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, spec, size_divisor=PATCH, **kwargs)
        encoder: Any = model
        self.channel_ids = channel_ids(spec, RADAR, scale=1000)
        if all(i > 0 for i in self.channel_ids):
            # radar embeddings are not used, but weight decay would change them
            channels = encoder.patch_embed.chnfus.chnemb
            for name in ("embed_transmit", "embed_receive", "embed_orbit"):
                getattr(channels, name).requires_grad_(False)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        # a new tensor each time: the embedding modifies it in place
        ids = torch.tensor(self.channel_ids, device=images.device).repeat(images.shape[0], 1)
        x = model.patch_embed({"imgs": images, "chn_ids": ids})
        grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        position = resample_abs_pos_embed(model.pos_embed, list(grid))
        x = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + position
        to_map = partial(after_class_token, grid=grid)
        return run_blocks(x, self.blocks, model.norm, to_map, emit, out_indices)[:, :1]


def panopticon_backbone(spec: BackboneSpec) -> PanopticonBackbone:
    """Build Panopticon's encoder; `weights` is the published checkpoint."""
    with spec.imports_provider():
        from torchgeo.models import Panopticon
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options)
    channel_ids(spec, RADAR, scale=1000)  # check bands before downloading weights
    model = Panopticon(**SHAPES[spec.model], img_size=_PRETRAINING_SIZE).model
    source = load_published_weights(model, spec, info.weights)
    return PanopticonBackbone(model, spec, licence=info.licence, source=source)
