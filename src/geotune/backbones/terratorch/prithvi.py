"""Prithvi-EO 1.0 and 2.0 (arXiv 2310.18660, 2412.02732): masked autoencoders of Landsat and
Sentinel-2 time series; the `tl` models also use time and location."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint, run_blocks
from geotune.backbones.blocks import TokenLayout
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import hub_state_dict, load_weights
from geotune.errors import GeotuneError

_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")  # of Sentinel-2; HLS harmonises Landsat to them
_MEAN_1 = (775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0)
_STD_1 = (1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0)
_MEAN_2 = (1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0)
_STD_2 = (2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0)


def _info(hub: str, *, first: bool = False, tl: bool = False) -> ModelInfo:
    return ModelInfo(
        paper="Prithvi-EO-1.0, arXiv 2310.18660" if first else "Prithvi-EO-2.0, arXiv 2412.02732",
        licence=f"Apache-2.0 ({hub})" if hub else "no weights are published",
        weights=hub,
        bands=_BANDS,
        mean=_MEAN_1 if first else _MEAN_2,
        std=_STD_1 if first else _STD_2,
        metadata=("time", "location") if tl else (),
        supported_options=("timesteps", "new_bands"),
    )


_HUB = "ibm-nasa-geospatial/Prithvi-EO-"
MODELS: dict[str, ModelInfo] = {
    "prithvi_eo_tiny": _info(""),
    "prithvi_eo_v1_100": _info(f"{_HUB}1.0-100M", first=True),
    "prithvi_eo_v2_tiny_tl": _info(f"{_HUB}2.0-tiny-TL", tl=True),
    "prithvi_eo_v2_100": _info(""),
    "prithvi_eo_v2_100_tl": _info(f"{_HUB}2.0-100M-TL", tl=True),
    "prithvi_eo_v2_300": _info(f"{_HUB}2.0-300M"),
    "prithvi_eo_v2_300_tl": _info(f"{_HUB}2.0-300M-TL", tl=True),
    "prithvi_eo_v2_600": _info(f"{_HUB}2.0-600M"),
    "prithvi_eo_v2_600_tl": _info(f"{_HUB}2.0-600M-TL", tl=True),
}


class PrithviBackbone(Backbone):
    """Prithvi's encoder; each tap has one map per date."""

    token_layout = TokenLayout(prefix=1)

    def __init__(
        self, model: nn.Module, spec: BackboneSpec, match: BandMatch, **kwargs: Any
    ) -> None:
        encoder: Any = model
        super().__init__(
            model, spec, size_divisor=int(encoder.patch_embed.patch_size[-1]), **kwargs
        )
        # unused encodings would never receive a gradient
        for item in ("time", "location"):
            if item not in self.metadata:
                attribute = {"time": "temporal", "location": "location"}[item]
                setattr(encoder, f"{attribute}_encoding", False)
                if hasattr(encoder, f"{attribute}_embed_enc"):
                    delattr(encoder, f"{attribute}_embed_enc")
        if match.all_known:
            info = MODELS[spec.model]
            self.set_statistics(match.select(info.mean), match.select(info.std))
        self.notes = (match.note,) if match.note else ()
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def run(
        self,
        images: Tensor,
        emit: Emit,
        out_indices: set[int],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        images = images.unsqueeze(2) if images.ndim == 4 else images
        x = model.patch_embed(images)
        position = model.interpolate_pos_encoding(images.shape[-3:])
        x = x + position[:, 1:]
        dates = images.shape[2]
        if time is not None:
            from_zero = time - time.new_tensor([0, 1])  # days of the year count from 0
            x = x + model.temporal_embed_enc(from_zero, x.shape[1] // dates)
        if location is not None:
            x = x + model.location_embed_enc(location.flip(-1))  # latitude first
        first = (model.cls_token + position[:, :1]).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x], dim=1)
        rows, columns = images.shape[-2] // self.size_divisor, images.shape[-1] // self.size_divisor

        def to_map(x: Tensor) -> Tensor:
            maps = x[:, 1:].reshape(x.shape[0], dates, rows, columns, -1)
            return maps.permute(0, 4, 1, 2, 3)

        return run_blocks(x, self.blocks, model.norm, to_map, emit, out_indices)[:, :1]


def prithvi_backbone(spec: BackboneSpec) -> PrithviBackbone:
    """Build a Prithvi encoder; `weights` is the published checkpoint, or only its encoder."""
    from terratorch.models.backbones.prithvi_vit import (
        PrithviViT,
        checkpoint_filter_fn_vit,
        pretrained_weights,
        prithvi_cfgs,
    )

    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    match = match_bands(spec, info.bands)
    shape = {**prithvi_cfgs[spec.model], "in_chans": len(spec.bands), "num_frames": spec.timesteps}
    model = PrithviViT(**shape)
    source = None
    if spec.loads_weights:
        published = pretrained_weights.get(spec.model, {})
        state, source = hub_state_dict(spec, info.weights, published.get("hf_hub_filename", ""))
        embedding = next((k for k in state if k.endswith("patch_embed.proj.weight")), None)
        if embedding is not None and state[embedding].shape[1] == len(info.bands):
            state[embedding] = match.fit_weight(state[embedding])
        expected = tuple(model.patch_embed.proj.weight.shape)
        if embedding is not None and tuple(state[embedding].shape) != expected:
            # TerraTorch would initialise it randomly
            raise GeotuneError(
                f"{source}: weights do not match {spec.name} with these bands: {embedding} is "
                f"{tuple(state[embedding].shape)}, expected {expected}; use a checkpoint of that "
                "model with its original bands or with those of backbone.bands",
                code="weights-mismatch",
                key="backbone.weights",
            )
        bands = list(range(len(spec.bands)))  # already adapted
        state = checkpoint_filter_fn_vit(state, model, bands, bands) if embedding else state
        load_weights(model, state, source, spec.name)
    return PrithviBackbone(model, spec, match, licence=info.licence, source=source)
