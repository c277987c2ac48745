"""Scale-MAE (arXiv 2212.14532): a masked autoencoder of RGB images of any resolution, its position
encoding scaled by the ground sampling distance."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import Tokens
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.input_spec import FMOW, describe, fit_images
from geotune.backbones.torchgeo.pretrained import published_state
from geotune.backbones.torchgeo.vit_utils import run_blocks
from geotune.backbones.weights import load_state
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

    tokens = Tokens(prefix=1)

    def __init__(
        self, model: nn.Module, request: BackboneSpec, fit: BandMatch, **kwargs: Any
    ) -> None:
        encoder: Any = model
        super().__init__(
            model, request, size_divisor=int(encoder.patch_embed.patch_size[0]), **kwargs
        )
        self.gsd_m = 1.0 if request.gsd is None else request.gsd
        describe(self, FMOW, fit)
        if request.gsd is None:
            self.notes += ("no backbone.gsd is given: pixels of 1 m are assumed",)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        grid = images.shape[-2] // self.size_divisor, images.shape[-1] // self.size_divisor
        x = model.patch_embed(images)
        x = x + self._places(grid, images.device).to(x.dtype)
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)  # it has no place
        return run_blocks(x, self.blocks, model.norm, grid, emit, out_indices)

    def _places(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Position encodings `(1, rows * columns, D)`."""
        from torchgeo.models.scale_mae import get_2d_sincos_pos_embed_with_resolution

        side = max(grid)  # positions are absolute, so a rectangle is a part of a square
        gsd = torch.full((1,), self.gsd_m, device=device)
        width: Any = self.model.embed_dim
        square: Tensor = get_2d_sincos_pos_embed_with_resolution(width, side, gsd)
        square = square.reshape(1, side, side, -1)
        return square[:, : grid[0], : grid[1]].flatten(1, 2)


def scalemae_backbone(request: BackboneSpec) -> ScaleMaeBackbone:
    """Build Scale-MAE's encoder; `weights` is a checkpoint as torchgeo publishes it."""
    try:
        from torchgeo.models import ScaleMAE
    except ImportError as error:
        raise request.not_installed(error) from error
    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options)
    if request.gsd is not None and not request.gsd > 0:
        raise GeotuneError(f"backbone.gsd {request.gsd}: expected metres per pixel, more than 0")
    fit = fit_images(request, FMOW)
    model = ScaleMAE(
        **SHAPES[request.model],
        in_chans=len(FMOW.bands),
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.pos_embed = None  # it is computed
    model.patch_embed.strict_img_size = False
    source = None
    if request.loads_weights:
        state, source = published_state(request, facts.weights)
        load_state(model, state, source, request.name)
    embedding = model.patch_embed.proj
    embedding.weight = nn.Parameter(fit.weight(embedding.weight.detach()))
    embedding.in_channels = len(request.bands)
    return ScaleMaeBackbone(model, request, fit, licence=facts.licence, source=source)
