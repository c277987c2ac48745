"""Presto (arXiv 2304.14065): a transformer for the time series of one pixel. Maps are computed by
running it on every pixel, or on the mean of every patch of pixels.

A pixel has one token per date and group of bands. Its features are the mean over all tokens, so
the model itself combines the dates.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geotune.backbones.bands import BandMatch, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn.band_groups import select_groups
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import encoder_state, hub_state_dict, load_weights
from geotune.errors import GeotuneError
from geotune.types import Normalization

JULY = 6  # months count from 0; rslearn's default for unknown dates
CHUNK_TOKENS = 2**15
"""Tokens of a chunk of pixels: about 0.25 GB, or 1 GB with gradients."""

# offset and scale of raw values (dB, Kelvin, metres, degrees) by band
SCALES: dict[str, tuple[float, float]] = {
    "VV": (-25.0, 25.0),
    "VH": (-25.0, 25.0),
    **{b: (0.0, 1e4) for b in ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A")},
    "B11": (0.0, 1e4),
    "B12": (0.0, 1e4),
    "temperature_2m": (272.15, 35.0),
    "total_precipitation": (0.0, 0.03),
    "elevation": (0.0, 2000.0),
    "slope": (0.0, 50.0),
}
_HUB = "nasaharvest/presto"
MODELS: dict[str, ModelInfo] = {
    "presto": ModelInfo(
        paper="Lightweight, Pre-trained Transformers for Remote Sensing Timeseries, "
        "arXiv 2304.14065",
        licence=f"MIT ({_HUB})",
        weights=_HUB,
        bands=tuple(SCALES),
        metadata=("time", "location"),
        supported_options=("patch_size", "timesteps"),
    )
}


class PrestoBackbone(Backbone):
    """Presto's encoder, run on chunks of pixels."""

    token_layout = None  # the blocks see single pixels

    def __init__(
        self,
        model: nn.Module,
        spec: BackboneSpec,
        match: BandMatch,
        *,
        patch_size: int,
        **kwargs: Any,
    ) -> None:
        from rslearn.models.presto.presto import INPUT_PRESTO_BANDS
        from rslearn.models.presto.single_file_presto import BANDS_GROUPS_IDX

        super().__init__(model, spec, size_divisor=patch_size, **kwargs)
        encoder: Any = model
        self.patch_size = patch_size
        self._groups, self.notes = select_groups(
            "Presto",
            self.bands,
            {g: [INPUT_PRESTO_BANDS[i] for i in m] for g, m in BANDS_GROUPS_IDX.items()},
        )
        self._channel_rows = [list(BANDS_GROUPS_IDX).index(g.name) for g in self._groups]
        # modules of unused inputs would never receive a gradient
        in_use = [group.name for group in self._groups]
        for group in [g for g in encoder.eo_patch_embed if g not in in_use]:
            del encoder.eo_patch_embed[group]
        del encoder.dw_embed
        if "location" not in self.metadata:
            del encoder.latlon_embed
        self.fingerprint = fingerprint(model)
        scales = [list(SCALES.values())[c] for c in match.columns if c is not None]
        self.normalization = Normalization(
            self.bands, tuple(offset for offset, _ in scales), tuple(scale for _, scale in scales)
        )
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
        """See `Backbone.run`. Each chunk of pixels passes all blocks before the next chunk.

        All maps are emitted at the end: running block by block would keep the tokens of all pixels
        in memory, which are far larger than the maps.
        """
        images = images.unsqueeze(2) if images.ndim == 4 else images
        if self.patch_size > 1:
            images = F.avg_pool3d(images, (1, self.patch_size, self.patch_size))
        batch, _, dates, rows, columns = images.shape
        months = torch.full((batch, dates), JULY, device=images.device)
        if time is not None:
            months, _ = months_and_days(time)
        pixels = images.permute(0, 3, 4, 1, 2).flatten(0, 2)
        image_of = torch.arange(batch, device=images.device).repeat_interleave(rows * columns)
        xyz = None if location is None else lonlat_to_xyz(location)
        size = max(1, CHUNK_TOKENS // (dates * len(self._groups)))
        in_order = sorted(out_indices)
        chunks = []
        for chunk, image in zip(
            torch.split(pixels, size), torch.split(image_of, size), strict=True
        ):
            inputs = (chunk, months[image], None if xyz is None else xyz[image], in_order)
            if torch.is_grad_enabled() and len(pixels) > size:
                # recompute in the backward pass, to keep the tokens of one chunk only
                chunks.append(checkpoint(self._pixels, *inputs, use_reentrant=False))
            else:
                chunks.append(self._pixels(*inputs))
        for index, features in zip(in_order, zip(*chunks, strict=True), strict=True):
            feature = torch.cat(features).reshape(batch, rows, columns, -1)
            emit(index, feature.permute(0, 3, 1, 2))
        return None

    def _pixels(
        self, pixels: Tensor, months: Tensor, xyz: Tensor | None, out_indices: list[int]
    ) -> tuple[Tensor, ...]:
        """Features `(N, D)` of pixels `(N, C, T)` after each block of `out_indices`.

        `months` `(N, T)` count from 0; `xyz` `(N, 3)` is the location on the unit sphere.
        """
        model: Any = self.model
        by_month = model.month_embed(months)
        by_date = model.pos_embed[:, : months.shape[1]].expand(len(pixels), -1, -1)
        tokens = []
        for group, row in zip(self._groups, self._channel_rows, strict=True):
            embedded = model.eo_patch_embed[group.name](group.select(pixels))
            by_channel = model.channel_embed(torch.tensor([row], device=pixels.device))
            by_channel = by_channel.expand(*months.shape, -1)
            if group.name == "SRTM":  # terrain has no date: one token, of the first date
                by_channel = F.pad(by_channel[:, :1], (by_month.shape[-1], by_date.shape[-1]))
                tokens.append(embedded[:, :1] + by_channel)
            else:
                tokens.append(embedded + torch.cat([by_month, by_channel, by_date], dim=-1))
        if xyz is not None:
            tokens.insert(0, model.latlon_embed(xyz).unsqueeze(1))
        x = torch.cat(tokens, dim=1)
        features = {}
        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x)
            if index in out_indices:
                mean = x.mean(dim=1)
                features[index] = model.norm(mean) if index == last else mean
        return tuple(features[index] for index in out_indices)


def presto_backbone(spec: BackboneSpec) -> PrestoBackbone:
    """Build Presto's encoder; `weights` is the published `default_model.pt`, or its encoder's part.

    Squares of `patch_size` pixels (default 1) are averaged before the model.
    """
    from rslearn.models.presto.single_file_presto import Presto

    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    if spec.combine != "mean":
        raise GeotuneError(
            f"backbone.combine {spec.combine}: {spec.name} combines the dates itself; remove this "
            "option",
            code="backbone-option",
            key="backbone.combine",
        )
    patch = spec.flexible_patch_size(1)
    match = match_bands(spec, info.bands)
    model = Presto.construct().encoder
    spec.check_num_dates(model.max_sequence_length)
    source = None
    if spec.loads_weights:
        state, source = hub_state_dict(spec, info.weights, "default_model.pt")
        load_weights(model, encoder_state(state), source, spec.name)
    return PrestoBackbone(model, spec, match, patch_size=patch, licence=info.licence, source=source)
