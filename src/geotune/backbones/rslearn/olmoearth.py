"""OlmoEarth 1 to 1.3 (arXiv 2511.13655): Sentinel-2, Sentinel-1 and Landsat on one or several
dates, flexible patches.

Each token represents a patch, a date and a group of bands. Maps are means over the groups of a
modality, then over modalities, as in rslearn. Version 1 adds encodings of position and date to the
tokens; from 1.2 on they are rotary. Of 1.3 the encoder is used without its attention pooler.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, canonical_band, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import TokenLayout
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.rslearn.band_groups import add_encodings, select_groups
from geotune.backbones.rslearn.date_location import months_and_days
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import (
    download_from_hub,
    encoder_state,
    load_weights,
    read_state_dict,
)
from geotune.errors import GeotuneError

PACKAGE = "olmoearth_pretrain_minimal"
MAX_DATES = 12  # monthly, as in pretraining
DEFAULT_GSD_M = 10.0

# mean and standard deviation in the pretraining data by band; Sentinel-1 in dB
STATISTICS: dict[str, dict[str, tuple[float, float]]] = {
    "sentinel2_l2a": {
        "B02": (1188.9412572078477, 1859.1923971769581),
        "B03": (1407.7739105458452, 1727.7387413631088),
        "B04": (1513.0573882432757, 1740.7757298757895),
        "B08": (2755.481305028308, 1612.2565699990187),
        "B05": (1890.9893042634167, 1754.7320388511766),
        "B06": (2483.7812315422448, 1622.1172720635755),
        "B07": (2722.728248756412, 1621.8226170190276),
        "B8A": (2885.570263047681, 1611.3587521042082),
        "B11": (2562.852607796968, 1441.5471830655151),
        "B12": (1914.1383249044113, 1328.8914382756407),
        "B01": (1115.8494388252218, 1955.6991794280914),
        "B09": (3269.812554170875, 2651.088425085525),
    },
    "sentinel1": {
        "VV": (-11.648990747328444, 10.840350299936597),
        "VH": (-17.745436133270044, 10.216274681392647),
    },
    "landsat": {
        "B8": (10132.090998288624, 7788.7282476413675),
        "B1": (11000.959519415692, 7857.9205791510285),
        "B2": (10493.416292898208, 7872.392135393957),
        "B3": (10146.318478942761, 7676.2774595217115),
        "B4": (10236.446029167704, 8038.218121686258),
        "B5": (14427.021492873682, 9302.431605916356),
        "B6": (12164.08145353199, 7442.390533225441),
        "B7": (9712.032951062303, 6037.712185433222),
        "B9": (4585.469566989013, 2549.745355740949),
        "B10": (21347.89356940543, 10957.2815012006),
        "B11": (19686.23205859348, 9911.421224126807),
    },
}
_DEFAULT_MODALITIES = ("sentinel2_l2a", "sentinel1")  # of bands without a modality
_BY_NAME = {b: values for m in _DEFAULT_MODALITIES for b, values in STATISTICS[m].items()}
_SIZES = {
    "v1": ("nano", "tiny", "base", "large"),
    "v1_1": ("nano", "tiny", "base"),
    "v1_2": ("nano", "tiny", "small", "base"),
    "v1_3": ("base",),
}


def _info(version: str, size: str) -> ModelInfo:
    hub = f"allenai/OlmoEarth-{version}-{size.capitalize()}"
    return ModelInfo(
        paper="OlmoEarth: Stable Latent Image Modeling for Multimodal Earth Observation, "
        "arXiv 2511.13655",
        licence=f"OlmoEarth Artifact License ({hub})",
        weights=hub,
        bands=tuple(_BY_NAME),
        mean=tuple(mean for mean, _ in _BY_NAME.values()),
        std=tuple(std for _, std in _BY_NAME.values()),
        modalities={modality: tuple(bands) for modality, bands in STATISTICS.items()},
        metadata=("time",),
        supported_options=("patch_size", "timesteps", "modalities", "gsd"),
    )


MODELS: dict[str, ModelInfo] = {
    f"olmoearth_{version}_{size}": _info(version, size)
    for version, sizes in _SIZES.items()
    for size in sizes
}


class OlmoEarthBackbone(Backbone):
    """OlmoEarth's encoder."""

    token_layout = TokenLayout(order="location_first")

    def __init__(
        self,
        model: nn.Module,
        spec: BackboneSpec,
        named: tuple[str, ...],
        match: BandMatch,
        *,
        patch_size: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, spec, size_divisor=patch_size, **kwargs)
        encoder: Any = model
        self.patch_size = patch_size
        self.gsd = DEFAULT_GSD_M if spec.gsd is None else spec.gsd
        orders = _part("utils.constants").Modality
        groups = {
            f"{modality}__{i}": [
                _named(modality, orders.get(modality).band_order[j]) for j in members
            ]
            for modality in STATISTICS
            for i, members in enumerate(encoder.tokenization_config.get_bandset_indices(modality))
        }
        # from 1.1 on, single bands of these were randomly set to zero in pretraining
        dropped = encoder.band_dropout_modalities or ()
        self._groups, self.notes = select_groups(
            "OlmoEarth", named, groups, zero=[g for g in groups if _modality(g) in dropped]
        )
        modalities = [_modality(group.name) for group in self._groups]
        self._group_weights = [1 / modalities.count(m) / len(set(modalities)) for m in modalities]
        _drop_unused(encoder, [group.name for group in self._groups])
        self.fingerprint = fingerprint(model)
        statistics = [values for bands in STATISTICS.values() for values in bands.values()]
        means, stds = (match.select([values[i] for values in statistics]) for i in (0, 1))
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
        timestamps = self._timestamps(time, dates, images.device)
        months = model.composite_encodings.month_embed(timestamps[..., 1])
        additive = model.position_encoding == "absolute"
        by_date = self._by_date(dates, images.device) if additive else None
        positions = self.position_encodings(rows, columns, images.device) if additive else None
        tokens = []
        for group in self._groups:
            modality, _, number = group.name.partition("__")
            embed = model.patch_embeddings.per_modality_embeddings[modality][group.name]
            inputs = group.select(images).permute(0, 2, 3, 1, 4)
            channels = model.composite_encodings.per_modality_channel_embeddings[modality]
            tokens.append(
                add_encodings(
                    embed(inputs, patch_size=self.patch_size),
                    channel=channels[int(number)],
                    dates=by_date,
                    months=months,
                    positions=positions,
                )
            )
        shape = (batch, rows, columns, dates, len(tokens))
        x = torch.stack(tokens, dim=4).flatten(1, 4)
        rope_positions = None
        if not additive:
            rope_positions = self._rope_positions(timestamps, shape).flatten(1, 4)
        weights = torch.tensor(self._group_weights, device=x.device)

        def to_map(sequence: Tensor) -> Tensor:
            grid = sequence.reshape(*shape, -1)
            return torch.einsum("bhwtgd,g->bdthw", grid, weights.to(grid.dtype))

        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x=x, rope_positions=rope_positions)
            if index in out_indices:
                emit(index, to_map(model.norm(x) if index == last else x))
        return None

    def _timestamps(self, time: Tensor | None, dates: int, device: torch.device) -> Tensor:
        """Day, month (from 0) and year `(B or 1, T, 3)`.

        Defaults to the first days of consecutive months of 2024, as in rslearn.
        """
        if time is not None:
            month, day = months_and_days(time)
            return torch.stack([day, month, time[..., 0].long()], dim=-1)
        month = torch.arange(dates, device=device)
        first = torch.ones_like(month)
        return torch.stack([first, month, 2024 * first], dim=-1).unsqueeze(0)

    def _by_date(self, dates: int, device: torch.device) -> Tensor:
        """Encodings `(T, D / 4)` of the dates' order."""
        model: Any = self.model
        order = torch.arange(dates, device=device)
        encoding: Tensor = _part("nn.encodings").get_1d_sincos_pos_encoding(
            order, model.composite_encodings.embedding_dim_per_embedding_type
        )
        return encoding

    def position_encodings(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Encodings `(rows, columns, D / 4)` of the patches' positions in the image."""
        model: Any = self.model
        side = max(rows, columns)  # absolute positions: a rectangle is part of a square
        positions: Tensor = _part("nn.encodings").get_2d_sincos_pos_encoding_with_resolution(
            grid_size=side,
            res=torch.full((1,), self.patch_size * self.gsd / DEFAULT_GSD_M, device=device),
            encoding_dim=model.composite_encodings.embedding_dim_per_embedding_type,
            device=device,
        )
        return positions.reshape(side, side, -1)[:rows, :columns]

    def _rope_positions(self, timestamps: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Day, row and column `(B, h, w, T, groups, 3)` of each token, for rotary embedding."""
        model: Any = self.model
        device = timestamps.device
        days = _part("nn.encodings").timestamps_to_days(timestamps).float()
        days = days * model.rope_temporal_coordinate_scale
        step = self.patch_size * self.gsd / DEFAULT_GSD_M * model.rope_coordinate_scale
        row = torch.arange(shape[1], device=device) * step
        column = torch.arange(shape[2], device=device) * step
        return torch.stack(
            [
                days[:, None, None, :, None].expand(shape),
                row[:, None, None, None].expand(shape),
                column[:, None, None].expand(shape),
            ],
            dim=-1,
        )


def olmoearth_backbone(spec: BackboneSpec) -> OlmoEarthBackbone:
    """Build an OlmoEarth encoder by a name such as `olmoearth_v1_2_nano`.

    `weights` is the published folder, its `weights.pth`, or the weights of the encoder. Landsat
    bands have Landsat's names and need their modality: `{"landsat": ["B2", "B3"]}`.
    """
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    patch = spec.flexible_patch_size(8, maximum=8)
    spec.check_num_dates(MAX_DATES)
    named = _with_modalities(spec)
    known = [_named(modality, band) for modality, bands in STATISTICS.items() for band in bands]
    match = match_bands(spec.with_bands(named), known)
    model = _build(spec)
    source = None
    if spec.loads_weights:
        if spec.weights is None:
            path, source = download_from_hub(spec, info.weights, "weights.pth")
        else:
            source = str(spec.weights)
            path = spec.weights / "weights.pth" if spec.weights.is_dir() else spec.weights
        load_weights(model, encoder_state(read_state_dict(path)), source, spec.name)
    return OlmoEarthBackbone(
        model, spec, named, match, patch_size=patch, licence=info.licence, source=source
    )


def _build(spec: BackboneSpec) -> nn.Module:
    """The encoder with random weights."""
    try:
        package: Any = import_module(PACKAGE)
    except ImportError as error:
        raise GeotuneError(
            f"backbone.name {spec.name}: {error.name} is not installed; install it with: "
            "pip install olmoearth-pretrain-minimal",
            code="dependency-missing",
            key="backbone.name",
        ) from error
    version, size = spec.model.removeprefix("olmoearth_").rsplit("_", 1)
    whole = package.OlmoEarthPretrain_v1(
        size, version.replace("_", "."), supported_modality_names=list(STATISTICS)
    )
    encoder: nn.Module = whole.model.encoder
    return encoder


def _part(name: str) -> Any:
    """Import a module of the package, which is untyped."""
    return import_module(f"{PACKAGE}.olmoearth_pretrain_v1.{name}")


def _modality(group: str) -> str:
    return group.partition("__")[0]


def _named(modality: str, band: str) -> str:
    """A band name with its modality, such as `landsat B8`, which is not Sentinel-2's B8."""
    return f"{modality} {band.upper() if modality == 'landsat' else canonical_band(band)}"


def _with_modalities(spec: BackboneSpec) -> tuple[str, ...]:
    unknown = [m for m in spec.modalities if m not in STATISTICS]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: {spec.name} has no modality {', '.join(unknown)}; it has "
            f"{', '.join(STATISTICS)}",
            code="band-unknown",
            key="backbone.bands",
        )
    if spec.modalities:
        return tuple(_named(m, band) for m, bands in spec.modalities.items() for band in bands)
    radar = STATISTICS["sentinel1"]
    return tuple(
        _named("sentinel1" if canonical_band(band) in radar else "sentinel2_l2a", band)
        for band in spec.bands
    )


def _drop_unused(encoder: Any, groups: list[str]) -> None:
    """Remove modules of unused inputs and those that the maps do not depend on."""
    embeddings = encoder.patch_embeddings.per_modality_embeddings
    channels = encoder.composite_encodings.per_modality_channel_embeddings
    for modality in list(embeddings):
        for group in [g for g in embeddings[modality] if g not in groups]:
            del embeddings[modality][group]
        if not len(embeddings[modality]):
            del embeddings[modality], channels[modality]
    del encoder.project_and_aggregate
    encoder.attention_pooler = None
