"""Galileo (arXiv 2502.09356): Sentinel-2 and Sentinel-1 on one or several dates, flexible patches.

Modules of unused band groups are removed; such groups are masked, as in pretraining.
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
from geotune.backbones.blocks import TokenLayout
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn.band_groups import add_encodings, select_groups
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import download_from_hub
from geotune.errors import GeotuneError

SIZES = ("nano", "tiny", "base")
JUNE = 5  # months count from 0; Galileo's default for unknown dates
DEFAULT_GSD_M = 10.0
_SHAPES: dict[str, dict[str, int]] = {
    "nano": {"embedding_size": 128, "depth": 4, "num_heads": 8, "mlp_ratio": 4},
    "tiny": {"embedding_size": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4},
    "base": {"embedding_size": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4},
}
# mean and standard deviation by band; Sentinel-1 in dB
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
    """Galileo's encoder; maps are means over the groups of bands, as in rslearn."""

    token_layout = TokenLayout(order="location_first")

    def __init__(
        self,
        model: nn.Module,
        spec: BackboneSpec,
        match: BandMatch,
        *,
        patch_size: int,
        **kwargs: Any,
    ) -> None:
        from rslearn.models.galileo import single_file_galileo as galileo

        super().__init__(model, spec, size_divisor=patch_size, **kwargs)
        self.patch_size = patch_size
        self.gsd = DEFAULT_GSD_M if spec.gsd is None else spec.gsd
        self._sincos_encoding = galileo.get_2d_sincos_pos_embed_with_resolution
        names, members = galileo.SPACE_TIME_BANDS, galileo.SPACE_TIME_BANDS_GROUPS_IDX
        self._groups, self.notes = select_groups(
            "Galileo", self.bands, {group: [names[i] for i in m] for group, m in members.items()}
        )
        self._channel_rows = [list(members).index(group.name) for group in self._groups]
        self._location_row = list(galileo.STATIC_BAND_GROUPS_IDX).index("location")
        _drop_unused(model, [group.name for group in self._groups], "location" in self.metadata)
        self.fingerprint = fingerprint(model)
        info = MODELS[spec.model]
        means, stds = match.select(info.mean), match.select(info.std)
        self.set_statistics(means, stds, two_stds=True)  # as in pretraining
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
        by_month, positions = (
            model.month_embed(months),
            self.position_encodings(rows, columns, images.device),
        )
        tokens = []
        for group, row in zip(self._groups, self._channel_rows, strict=True):
            inputs = group.select(images).permute(0, 2, 3, 1, 4)
            tokens.append(
                add_encodings(
                    model.space_time_embed[group.name](inputs, patch_size=self.patch_size),
                    channel=model.s_t_channel_embed[row],
                    dates=model.pos_embed[:dates],
                    months=by_month,
                    positions=positions,
                )
            )
        shape = (batch, rows, columns, dates, len(tokens))
        x = torch.stack(tokens, dim=4).flatten(1, 4)
        count = x.shape[1]
        if location is not None:
            x = torch.cat([x, self._location_token(location).to(x.dtype)], dim=1)

        def to_map(sequence: Tensor) -> Tensor:
            return sequence[:, :count].reshape(*shape, -1).mean(dim=4).permute(0, 4, 3, 1, 2)

        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x=x, y=None, attn_mask=None)
            if index in out_indices:
                emit(index, to_map(model.norm(x) if index == last else x))
        return None

    def position_encodings(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Encodings `(rows, columns, D / 4)` of the patches' positions in the image."""
        model: Any = self.model
        side = max(rows, columns)  # absolute positions: a rectangle is part of a square
        ratio = torch.full((1,), self.patch_size * self.gsd / DEFAULT_GSD_M, device=device)
        quarter = model.embedding_size // 4
        positions = self._sincos_encoding(quarter, side, ratio, device=device)  # type: ignore[arg-type]
        return positions.reshape(side, side, quarter)[:rows, :columns]

    def _location_token(self, location: Tensor) -> Tensor:
        """One token `(B, 1, D)` for the image's location on Earth."""
        model: Any = self.model
        token: Tensor = model.static_embed["location"](lonlat_to_xyz(location))
        channel = model.st_channel_embed[self._location_row]
        return (token + F.pad(channel, (0, 3 * len(channel)))).unsqueeze(1)


def galileo_backbone(spec: BackboneSpec) -> GalileoBackbone:
    """Build `galileo_nano`, `galileo_tiny` or `galileo_base`.

    `weights` is the folder with `models/<size>/encoder.pt` and `config.json`, that subfolder, or
    one of the two files. Raises `GeotuneError` if they are missing and for unknown bands.
    """
    from rslearn.models.galileo.single_file_galileo import Encoder

    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    patch = spec.flexible_patch_size(8, maximum=8)
    match = match_bands(spec, info.bands)
    size = spec.model.removeprefix("galileo_")
    source = None
    if spec.loads_weights:
        folder, source = _weights(spec, size)
        try:
            model = Encoder.load_from_folder(folder, device=torch.device("cpu"))
        except Exception as error:
            raise GeotuneError(
                f"{folder}: cannot load the weights of Galileo {size} "
                f"({type(error).__name__}: {str(error)[:200]}); use the folder as published",
                code="weights-mismatch",
                key="backbone.weights",
                file=folder,
            ) from error
        found, expected = model.embedding_size, _SHAPES[size]["embedding_size"]
        if found != expected:
            raise GeotuneError(
                f"{folder}: holds a Galileo with tokens of {found} channels, but {spec.name} has "
                f"{expected}; use the folder of that size, or its name",
                code="weights-mismatch",
                key="backbone.weights",
                file=folder,
            )
    else:
        model = Encoder(**_SHAPES[size])  # type: ignore[arg-type]
    spec.check_num_dates(model.max_sequence_length)
    return GalileoBackbone(
        model, spec, match, patch_size=patch, licence=info.licence, source=source
    )


def _weights(spec: BackboneSpec, size: str) -> tuple[Path, str]:
    """The folder with `encoder.pt` and `config.json`, and a description of the source."""
    weights = spec.weights
    if weights is None:
        path, _ = download_from_hub(spec, _HUB, f"models/{size}/config.json")
        _, source = download_from_hub(spec, _HUB, f"models/{size}/encoder.pt")
        return path.parent, source
    folder = weights.parent if weights.is_file() else weights
    for candidate in (folder / "models" / size, folder):
        if (candidate / "encoder.pt").is_file() and (candidate / "config.json").is_file():
            return candidate, str(weights)
    raise GeotuneError(
        f"{weights}: contains no models/{size}/encoder.pt with config.json; use the folder of "
        f"{_HUB} as published",
        code="file-missing",
        key="backbone.weights",
        file=weights,
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
