"""Galileo (arXiv 2502.09356): Sentinel-2 and Sentinel-1 on one or several dates, flexible patches.

Only the modules of the bands in use are kept: absent groups of bands are masked in pretraining
too, so their embeddings would never be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import Tokens
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn.band_groups import add_encodings, groups_in_use
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import fetch
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, Normalization

SIZES = ("nano", "tiny", "base")
JUNE = 5  # months count from 0; Galileo's default where no date is known
GSD_M = 10.0
_SHAPES: dict[str, dict[str, int]] = {
    "nano": {"embedding_size": 128, "depth": 4, "num_heads": 8, "mlp_ratio": 4},
    "tiny": {"embedding_size": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4},
    "base": {"embedding_size": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4},
}
# band: mean and standard deviation, dB for Sentinel-1
_STATISTICS: dict[str, tuple[float, float]] = {
    "VV": (-11.728724389184965, 4.887145774840316),
    "VH": (-18.85558188024017, 5.730270320384293),
    "B02": (1395.3408730676722, 917.7041440370853),
    "B03": (1338.4026921784578, 913.2988423581528),
    "B04": (1343.09883810357, 1092.678723527555),
    "B05": (1543.8607982512297, 1047.2206083460424),
    "B06": (2186.2022069512263, 1048.0101611156767),
    "B07": (2525.0932853316694, 1143.6903026819996),
    "B08": (2410.3377187373408, 1098.979177731649),
    "B8A": (2750.2854646886753, 1204.472755085893),
    "B11": (2234.911100061487, 1145.9774063078878),
    "B12": (1474.5311266077113, 980.2429840007796),
}
_HUB = "nasaharvest/galileo"
MODELS: dict[str, ModelInfo] = {
    f"galileo_{size}": ModelInfo(
        paper="Galileo: Learning Global & Local Features of Many Remote Sensing Modalities, "
        "arXiv 2502.09356",
        licence=f"MIT ({_HUB})",
        weights=_HUB,
        bands=tuple(_STATISTICS),
        mean=tuple(mean for mean, _ in _STATISTICS.values()),
        std=tuple(std for _, std in _STATISTICS.values()),
        metadata=("time", "location"),
        supported_options=("patch_size", "timesteps", "gsd"),
    )
    for size in SIZES
}


class GalileoBackbone(Backbone):
    """Galileo's encoder; its maps are the means over the groups of bands, as in rslearn."""

    tokens = Tokens(order="tokens of a place together")

    def __init__(
        self,
        model: nn.Module,
        request: BackboneSpec,
        fit: BandMatch,
        *,
        patch_size: int,
        **kwargs: Any,
    ) -> None:
        from rslearn.models.galileo import single_file_galileo as galileo

        super().__init__(model, request, size_divisor=patch_size, **kwargs)
        self.patch_size = patch_size
        self.gsd = GSD_M if request.gsd is None else request.gsd
        self._positions = galileo.get_2d_sincos_pos_embed_with_resolution
        names, members = galileo.SPACE_TIME_BANDS, galileo.SPACE_TIME_BANDS_GROUPS_IDX
        self._groups, self.notes = groups_in_use(
            "Galileo", self.bands, {group: [names[i] for i in m] for group, m in members.items()}
        )
        self._rows_of_channels = [list(members).index(group.name) for group in self._groups]
        self._row_of_place = list(galileo.STATIC_BAND_GROUPS_IDX).index("location")
        _drop_unused(model, [group.name for group in self._groups], "location" in self.metadata)
        self.fingerprint = fingerprint(model)
        facts = MODELS[request.model]
        means, stds = fit.of(facts.mean), fit.of(facts.std)
        # Galileo's own normalisation: two standard deviations around the mean go to [0, 1]
        self.normalization = Normalization(
            self.bands,
            tuple(m - 2 * s for m, s in zip(means, stds, strict=True)),
            tuple(4 * s for s in stds),
        )
        self.pretraining = BandStatistics(self.bands, means, stds, pixels=0)
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
        batch, _, dates, height, width = images.shape
        rows, columns = height // self.patch_size, width // self.patch_size
        if time is None:
            months = torch.full((1, dates), JUNE, device=images.device)
        else:
            months, _ = months_and_days(time)
        by_month, places = model.month_embed(months), self._places(rows, columns, images.device)
        tokens = []
        for group, row in zip(self._groups, self._rows_of_channels, strict=True):
            inputs = group.of(images).permute(0, 2, 3, 1, 4)
            tokens.append(
                add_encodings(
                    model.space_time_embed[group.name](inputs, patch_size=self.patch_size),
                    channel=model.s_t_channel_embed[row],
                    dates=model.pos_embed[:dates],
                    months=by_month,
                    places=places,
                )
            )
        shape = (batch, rows, columns, dates, len(tokens))
        x = torch.stack(tokens, dim=4).flatten(1, 4)
        count = x.shape[1]
        if location is not None:
            x = torch.cat([x, self._place(location).to(x.dtype)], dim=1)

        def to_map(sequence: Tensor) -> Tensor:
            return sequence[:, :count].reshape(*shape, -1).mean(dim=4).permute(0, 4, 3, 1, 2)

        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x=x, y=None, attn_mask=None)
            if index in out_indices:
                emit(index, to_map(model.norm(x) if index == last else x))
        return None

    def _places(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Encodings `(rows, columns, D / 4)` of where a patch lies in the image."""
        model: Any = self.model
        side = max(rows, columns)  # positions are absolute, so a rectangle is a part of a square
        ratio = torch.full((1,), self.patch_size * self.gsd / GSD_M, device=device)
        quarter = model.embedding_size // 4
        places = self._positions(quarter, side, ratio, device=device)  # type: ignore[arg-type]
        return places.reshape(side, side, quarter)[:rows, :columns]

    def _place(self, location: Tensor) -> Tensor:
        """One token `(B, 1, D)` that says where on the Earth the image lies."""
        model: Any = self.model
        token: Tensor = model.static_embed["location"](lonlat_to_xyz(location))
        channel = model.st_channel_embed[self._row_of_place]
        return (token + F.pad(channel, (0, 3 * len(channel)))).unsqueeze(1)


def galileo_backbone(request: BackboneSpec) -> GalileoBackbone:
    """Build `galileo_nano`, `galileo_tiny` or `galileo_base`.

    `weights` is the folder that holds `models/<size>/encoder.pt` and `config.json`, that subfolder
    itself, or one of the two files. Raises `GeotuneError` where they are not there, and for a band
    that Galileo never saw.
    """
    from rslearn.models.galileo.single_file_galileo import Encoder

    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options, metadata=facts.metadata)
    patch = 8 if request.patch_size is None else request.patch_size
    if not 1 <= patch <= 8:
        raise GeotuneError(f"backbone.patch_size {patch}: Galileo takes patches of 1 to 8 pixels")
    fit = match_bands(request, facts.bands)
    size = request.model.removeprefix("galileo_")
    source = None
    if request.loads_weights:
        folder, source = _weights(request, size)
        try:
            model = Encoder.load_from_folder(folder, device=torch.device("cpu"))
        except Exception as error:
            raise GeotuneError(
                f"{folder}: cannot be loaded as Galileo {size} "
                f"({type(error).__name__}: {str(error)[:200]}); give the folder as published"
            ) from error
    else:
        model = Encoder(**_SHAPES[size])  # type: ignore[arg-type]
    request.refuse_more_dates(model.max_sequence_length)
    return GalileoBackbone(
        model, request, fit, patch_size=patch, licence=facts.licence, source=source
    )


def _weights(request: BackboneSpec, size: str) -> tuple[Path, str]:
    """The folder that holds `encoder.pt` and `config.json`, and what to call it."""
    weights = request.weights
    if weights is None:
        path, _ = fetch(request, _HUB, f"models/{size}/config.json")
        _, source = fetch(request, _HUB, f"models/{size}/encoder.pt")
        return path.parent, source
    folder = weights.parent if weights.is_file() else weights
    for place in (folder / "models" / size, folder):
        if (place / "encoder.pt").is_file() and (place / "config.json").is_file():
            return place, str(weights)
    raise GeotuneError(
        f"{weights}: found no models/{size}/encoder.pt with config.json; "
        f"give the folder of {_HUB} as published"
    )


def _drop_unused(model: Any, groups: Sequence[str], location: bool) -> None:
    for group in [g for g in model.space_time_embed if g not in groups]:
        del model.space_time_embed[group]
    for group in [g for g in model.static_embed if g != "location"]:
        del model.static_embed[group]
    for name in ("space_embed", "time_embed", "sp_channel_embed", "t_channel_embed"):
        delattr(model, name)
    if not location:
        del model.static_embed, model.st_channel_embed
