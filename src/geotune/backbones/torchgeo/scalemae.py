"""Scale-MAE (arXiv 2212.14532): a masked autoencoder of RGB images of any resolution, with position
encodings scaled by the ground sampling distance."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch
from geotune.backbones.base import Backbone, Emit, fingerprint, run_blocks
from geotune.backbones.blocks import TokenLayout, after_class_token
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.input_spec import FMOW, apply_input_spec, match_input_bands
from geotune.backbones.weights import load_published_weights
from geotune.errors import GeotuneError

SHAPES: dict[str, dict[str, int]] = {
    "scalemae_large_patch16": {"patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16}
}
MODELS: dict[str, ModelInfo] = {
    "scalemae_large_patch16": ModelInfo(
        paper="Scale-MAE, arXiv 2212.14532",
        licence="CC-BY-NC-4.0 (torchgeo's documentation)",
        weights="https://huggingface.co/isaaccorley/vit_large_patch16_224_fmow_rgb_scalemae/resolve/"
        "9dc7f569424baeb780698352cf6e87638c882123/"
        "vit_large_patch16_224_fmow_rgb_scalemae-98ed9821.pth",
        bands=FMOW.bands,
        mean=FMOW.mean,
        std=FMOW.std,
        supported_options=("gsd", "new_bands"),
    )
}


class ScaleMaeBackbone(Backbone):
    """Scale-MAE's encoder."""

    token_layout = TokenLayout(prefix=1)

    def __init__(
        self, model: nn.Module, spec: BackboneSpec, match: BandMatch, **kwargs: Any
    ) -> None:
        encoder: Any = model
        super().__init__(model, spec, size_divisor=int(encoder.patch_embed.patch_size[0]), **kwargs)
        self.gsd_m = 1.0 if spec.gsd is None else spec.gsd
        apply_input_spec(self, FMOW, match)
        if spec.gsd is None:
            self.notes += ("backbone.gsd is not set: using a ground sampling distance of 1 m",)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        grid = images.shape[-2] // self.size_divisor, images.shape[-1] // self.size_divisor
        x = model.patch_embed(images)
        x = x + self.position_encodings(grid, images.device).to(x.dtype)
        # the class token has no position encoding
        x = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        to_map = partial(after_class_token, grid=grid)
        return run_blocks(x, self.blocks, model.norm, to_map, emit, out_indices)[:, :1]

    def position_encodings(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Position encodings `(1, rows * columns, D)`."""
        from torchgeo.models.scale_mae import get_2d_sincos_pos_embed_with_resolution

        side = max(grid)  # absolute positions: a rectangle is part of a square
        gsd = torch.full((1,), self.gsd_m, device=device)
        width: Any = self.model.embed_dim
        square: Tensor = get_2d_sincos_pos_embed_with_resolution(width, side, gsd)
        square = square.reshape(1, side, side, -1)
        return square[:, : grid[0], : grid[1]].flatten(1, 2)


def scalemae_backbone(spec: BackboneSpec) -> ScaleMaeBackbone:
    """Build Scale-MAE's encoder; `weights` is the checkpoint published by torchgeo."""
    with spec.imports_provider():
        from torchgeo.models import ScaleMAE
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options)
    if spec.gsd is not None and not spec.gsd > 0:
        raise GeotuneError(
            f"backbone.gsd {spec.gsd}: expected metres per pixel, greater than 0",
            code="backbone-option",
            key="backbone.gsd",
        )
    match = match_input_bands(spec, FMOW)
    model = ScaleMAE(
        **SHAPES[spec.model],
        in_chans=len(FMOW.bands),
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.pos_embed = None  # computed for each image size
    model.patch_embed.strict_img_size = False
    source = load_published_weights(model, spec, info.weights)
    embedding = model.patch_embed.proj
    embedding.weight = nn.Parameter(match.fit_weight(embedding.weight.detach()))
    embedding.in_channels = len(spec.bands)
    return ScaleMaeBackbone(model, spec, match, licence=info.licence, source=source)
