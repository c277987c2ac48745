"""Presto (arXiv 2304.14065): a transformer on the time series of one pixel, which becomes a map by
running it on every pixel, or on the mean of every patch of pixels.

The tokens of a pixel are its dates x groups of bands. Its features are the mean of them all, so
the dates become one inside the model.
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
from geotune.backbones.rslearn.band_groups import groups_in_use
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import hub_state, load_state
from geotune.errors import GeotuneError
from geotune.types import Normalization

JULY = 6  # months count from 0; the default of rslearn where no date is known
TOKENS = 2**15
"""How many tokens are run at once: about a quarter of a gigabyte, or one with gradients."""

# band: what is subtracted from the raw values (dB, Kelvin, metres, degrees), what they are
# divided by
_SCALES: dict[str, tuple[float, float]] = {
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
        bands=tuple(_SCALES),
        metadata=("time", "location"),
        supported_options=("patch_size", "timesteps"),
    )
}


class PrestoBackbone(Backbone):
    """Presto's encoder, run on pixels in portions."""

    tokens = None  # a pixel at a time goes through the blocks

    def __init__(
        self,
        model: nn.Module,
        request: BackboneSpec,
        fit: BandMatch,
        *,
        patch_size: int,
        **kwargs: Any,
    ) -> None:
        from rslearn.models.presto.presto import INPUT_PRESTO_BANDS
        from rslearn.models.presto.single_file_presto import BANDS_GROUPS_IDX

        super().__init__(model, request, size_divisor=patch_size, **kwargs)
        encoder: Any = model
        self.patch_size = patch_size
        self._groups, self.notes = groups_in_use(
            "Presto",
            self.bands,
            {g: [INPUT_PRESTO_BANDS[i] for i in m] for g, m in BANDS_GROUPS_IDX.items()},
        )
        self._rows_of_channels = [list(BANDS_GROUPS_IDX).index(g.name) for g in self._groups]
        # what is not fed would never learn
        in_use = [group.name for group in self._groups]
        for group in [g for g in encoder.eo_patch_embed if g not in in_use]:
            del encoder.eo_patch_embed[group]
        del encoder.dw_embed
        if "location" not in self.metadata:
            del encoder.latlon_embed
        self.fingerprint = fingerprint(model)
        scales = [list(_SCALES.values())[c] for c in fit.columns if c is not None]
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
        """See `Backbone.run`. A portion of pixels goes through all blocks before the next one.

        All maps are there at the end only: the tokens of all pixels, which one block after the
        other would need, are far larger than the maps.
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
        place = None if location is None else lonlat_to_xyz(location)
        size = max(1, TOKENS // (dates * len(self._groups)))
        in_order = sorted(out_indices)
        portions = []
        for portion, image in zip(
            torch.split(pixels, size), torch.split(image_of, size), strict=True
        ):
            inputs = (portion, months[image], None if place is None else place[image], in_order)
            if torch.is_grad_enabled() and len(pixels) > size:
                # run anew in the backward pass, so that only one portion's tokens are held
                portions.append(checkpoint(self._pixels, *inputs, use_reentrant=False))
            else:
                portions.append(self._pixels(*inputs))
        for index, features in zip(in_order, zip(*portions, strict=True), strict=True):
            feature = torch.cat(features).reshape(batch, rows, columns, -1)
            emit(index, feature.permute(0, 3, 1, 2))
        return None

    def _pixels(
        self, pixels: Tensor, months: Tensor, place: Tensor | None, out_indices: list[int]
    ) -> tuple[Tensor, ...]:
        """Features `(N, D)` of pixels `(N, C, T)` after each block that is requested.

        `months` `(N, T)` count from 0; `place` is `(N, 3)`.
        """
        model: Any = self.model
        by_month = model.month_embed(months)
        by_date = model.pos_embed[:, : months.shape[1]].expand(len(pixels), -1, -1)
        tokens = []
        for group, row in zip(self._groups, self._rows_of_channels, strict=True):
            embedded = model.eo_patch_embed[group.name](group.of(pixels))
            by_channel = model.channel_embed(torch.tensor([row], device=pixels.device))
            by_channel = by_channel.expand(*months.shape, -1)
            if group.name == "SRTM":  # terrain has no date: one token, of what the first one says
                by_channel = F.pad(by_channel[:, :1], (by_month.shape[-1], by_date.shape[-1]))
                tokens.append(embedded[:, :1] + by_channel)
            else:
                tokens.append(embedded + torch.cat([by_month, by_channel, by_date], dim=-1))
        if place is not None:
            tokens.insert(0, model.latlon_embed(place).unsqueeze(1))
        x = torch.cat(tokens, dim=1)
        found = {}
        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x)
            if index in out_indices:
                mean = x.mean(dim=1)
                found[index] = model.norm(mean) if index == last else mean
        return tuple(found[index] for index in out_indices)


def presto_backbone(request: BackboneSpec) -> PrestoBackbone:
    """Build Presto's encoder; `weights` is `default_model.pt` as published, or of its encoder.

    `patch_size` is the side of the squares of pixels whose mean is run; 1 by default.
    """
    from rslearn.models.presto.single_file_presto import Presto

    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options, metadata=facts.metadata)
    if request.combine != "mean":
        raise GeotuneError(
            f"backbone.combine {request.combine}: {request.name} makes one map of all dates "
            "itself; leave it out"
        )
    patch = 1 if request.patch_size is None else request.patch_size
    if patch < 1:
        raise GeotuneError(f"backbone.patch_size {patch}: expected 1 pixel or more")
    fit = match_bands(request, facts.bands)
    model = Presto.construct().encoder
    request.refuse_more_dates(model.max_sequence_length)
    source = None
    if request.loads_weights:
        state, source = hub_state(request, facts.weights, "default_model.pt")
        of_encoder = {k: v for k, v in state.items() if k.startswith("encoder.")}
        state = {k.removeprefix("encoder."): v for k, v in of_encoder.items()} or state
        load_state(model, state, source, request.name)
    return PrestoBackbone(
        model, request, fit, patch_size=patch, licence=facts.licence, source=source
    )
