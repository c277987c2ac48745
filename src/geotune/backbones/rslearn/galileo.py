"""Galileo (arXiv 2502.09356), as rslearn ships it: MIT, weights from a local folder.

Only the modules of the bands in use are kept: absent groups of bands are masked in pretraining
too, so their embeddings would never be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.request import Request
from geotune.types import BandStatistics, GeotuneError, Normalization

SIZES = ("nano", "tiny", "base")
JUNE = 5  # months count from 0; Galileo's default where no date is known
GSD_M = 10


class GalileoBackbone(Backbone):
    """Galileo's encoder on one date of Sentinel-2 (and Sentinel-1) bands."""

    def __init__(
        self, model: nn.Module, request: Request, *, patch_size: int, **kwargs: Any
    ) -> None:
        from rslearn.models.galileo import single_file_galileo as galileo

        super().__init__(model, request, pad_to=patch_size, **kwargs)
        self.patch_size = patch_size
        self._positions = galileo.get_2d_sincos_pos_embed_with_resolution
        self.fingerprint = fingerprint(model)
        self._groups, self.notes = _groups_in_use(self.bands)
        _drop_unused(model, [group for group, _ in self._groups])
        means, stds = _pretraining_moments(self.bands)
        # Galileo's own normalisation: two standard deviations around the mean go to [0, 1]
        self.normalization = Normalization(
            self.bands,
            tuple(m - 2 * s for m, s in zip(means, stds, strict=True)),
            tuple(4 * s for s in stds),
        )
        self.pretraining = BandStatistics(self.bands, means, stds, pixels=0)
        self.taps = self.find_taps([f"blocks.{i}" for i in range(len(self.blocks))])

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks."""
        return list(self.model.blocks)  # type: ignore[arg-type]

    def run(
        self, images: Tensor, emit: Emit, wanted: set[int], **metadata: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`. A map is the mean over the groups of bands, as in rslearn."""
        model: Any = self.model
        batch, _, height, width = images.shape
        rows, columns = height // self.patch_size, width // self.patch_size
        encodings = self._encodings(rows, columns, images.device)
        tokens = []
        for (group, channels), encoding in zip(self._groups, encodings, strict=True):
            inputs = torch.stack([images[:, c].mean(1) for c in channels], dim=-1)
            embedded = model.space_time_embed[group](inputs, patch_size=self.patch_size)
            tokens.append(embedded + encoding.to(embedded.dtype))
        groups = len(self._groups)
        x = torch.stack(tokens, dim=3).reshape(batch, rows * columns * groups, -1)

        def to_map(sequence: Tensor) -> Tensor:
            grid = sequence.reshape(batch, rows, columns, groups, -1).mean(dim=3)
            return grid.permute(0, 3, 1, 2)

        last = len(model.blocks) - 1
        for index, block in enumerate(model.blocks):
            x = block(x=x, y=None, attn_mask=None)
            if index in wanted:
                emit(index, to_map(model.norm(x) if index == last else x))
        return None

    def _encodings(self, rows: int, columns: int, device: torch.device) -> list[Tensor]:
        """Channel, time, month and place encodings of each group in use, `(rows, columns, D)`."""
        from rslearn.models.galileo.single_file_galileo import SPACE_TIME_BANDS_GROUPS_IDX

        model: Any = self.model
        side = max(rows, columns)  # positions are absolute, so a rectangle is a part of a square
        ratio = torch.full((1,), float(self.patch_size * GSD_M / 10), device=device)
        quarter = model.embedding_size // 4
        place = self._positions(quarter, side, ratio, device=device)  # type: ignore[arg-type]
        place = place.reshape(side, side, quarter)[:rows, :columns]
        time = model.pos_embed[0].expand(rows, columns, -1)
        month = model.month_embed.weight[JUNE].expand(rows, columns, -1)
        names = list(SPACE_TIME_BANDS_GROUPS_IDX)
        return [
            torch.cat(
                [
                    model.s_t_channel_embed[names.index(group)].expand(rows, columns, -1),
                    time,
                    month,
                    place,
                ],
                dim=-1,
            )
            for group, _ in self._groups
        ]


def galileo_backbone(request: Request) -> GalileoBackbone:
    """Build `galileo_nano`, `galileo_tiny` or `galileo_base`.

    `weights` is the folder that holds `models/<size>/encoder.pt` and `config.json`, or that
    subfolder itself. Raises `GeotuneError` where it does not, and for a band Galileo never saw.
    """
    name, bands, weights = request.model, request.bands, request.weights
    try:
        from rslearn.models.galileo.single_file_galileo import Encoder
    except ImportError as error:
        raise GeotuneError(
            f"backbone.name rslearn/{name}: {error.name} is not installed; "
            "install it with: pip install 'geotune[rslearn]'"
        ) from error
    size = name.removeprefix("galileo_")
    if not name.startswith("galileo_") or size not in SIZES:
        raise GeotuneError(
            f"backbone.name rslearn/{name}: unknown; known: "
            + ", ".join(f"rslearn/galileo_{s}" for s in SIZES)
        )
    request.refuse_all_but("patch_size")
    patch = 8 if request.patch_size is None else request.patch_size
    if not 1 <= patch <= 8:
        raise GeotuneError(f"backbone.patch_size {patch}: Galileo takes patches of 1 to 8 pixels")
    _check_bands(name, bands)
    if weights is None and request.pretrained:
        raise GeotuneError(
            f"backbone.name rslearn/{name}: no weights are given; download the folder of "
            f"nasaharvest/galileo and give it with backbone.weights=FOLDER, or ask for random "
            "weights with backbone.pretrained=false"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if weights is None:
            model = Encoder(**_SHAPES[size])  # type: ignore[arg-type]
        else:
            folder = _weights_folder(weights, size)
            try:
                model = Encoder.load_from_folder(folder, device=torch.device("cpu"))
            except Exception as error:
                raise GeotuneError(
                    f"{folder}: cannot be loaded as Galileo {size} "
                    f"({type(error).__name__}: {str(error)[:200]}); give the folder as published"
                ) from error
    return GalileoBackbone(
        model,
        request,
        patch_size=patch,
        licence="MIT (nasaharvest/galileo)",
        source=str(weights) if weights else None,
    )


_SHAPES: dict[str, dict[str, int]] = {
    "nano": {"embedding_size": 128, "depth": 4, "num_heads": 8, "mlp_ratio": 4},
    "tiny": {"embedding_size": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4},
    "base": {"embedding_size": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4},
}


def _weights_folder(weights: Path, size: str) -> Path:
    for folder in (weights / "models" / size, weights):
        if (folder / "encoder.pt").is_file() and (folder / "config.json").is_file():
            return folder
    raise GeotuneError(
        f"{weights}: found no models/{size}/encoder.pt with config.json; "
        "give the folder of nasaharvest/galileo as published"
    )


def galileo_band(band: str) -> str:
    """Galileo's own name of a band: `B02` is `B2`, `B8a` is `B8A`."""
    plain = band.upper()
    return f"B{plain[2:]}" if plain.startswith("B0") else plain


def _check_bands(name: str, bands: Sequence[str]) -> None:
    from rslearn.models.galileo.single_file_galileo import S1_BANDS, S2_BANDS

    known = [*S1_BANDS, *S2_BANDS]
    unknown = [band for band in bands if galileo_band(band) not in known]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: rslearn/{name} does not know {', '.join(unknown)}; "
            f"it knows {', '.join(known)}"
        )
    if len({galileo_band(band) for band in bands}) != len(bands):
        raise GeotuneError(f"backbone.bands names a band twice: {', '.join(bands)}")


def _groups_in_use(
    bands: Sequence[str],
) -> tuple[list[tuple[str, list[list[int]]]], tuple[str, ...]]:
    """The groups that have a band, and for each of a group's bands the channels that feed it.

    A band that is absent from a group in use is fed by the mean of those present: the same as
    fitting the patch embedding to the bands there are.
    """
    from rslearn.models.galileo.single_file_galileo import (
        SPACE_TIME_BANDS,
        SPACE_TIME_BANDS_GROUPS_IDX,
    )

    channel = {galileo_band(band): i for i, band in enumerate(bands)}
    groups: list[tuple[str, list[list[int]]]] = []
    notes: list[str] = []
    for group, members in SPACE_TIME_BANDS_GROUPS_IDX.items():
        names = [SPACE_TIME_BANDS[i] for i in members]
        present = [name for name in names if name in channel]
        if not present:
            continue
        stand_in = [channel[name] for name in present]
        groups.append((group, [[channel[n]] if n in channel else stand_in for n in names]))
        absent = [name for name in names if name not in channel]
        if absent:
            notes.append(
                f"Galileo's group {group} lacks {', '.join(absent)}: its embedding was fitted to "
                f"{', '.join(present)} alone"
            )
    return groups, tuple(notes)


def _drop_unused(model: Any, groups: Sequence[str]) -> None:
    for group in [g for g in model.space_time_embed if g not in groups]:
        del model.space_time_embed[group]
    for name in ("space_embed", "time_embed", "static_embed"):
        delattr(model, name)
    for name in ("sp_channel_embed", "t_channel_embed", "st_channel_embed"):
        delattr(model, name)


def _pretraining_moments(bands: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from rslearn.models.galileo.single_file_galileo import NORMALIZING_DICT, SPACE_TIME_BANDS

    moments: Any = NORMALIZING_DICT[str(len(SPACE_TIME_BANDS))]
    where = [SPACE_TIME_BANDS.index(galileo_band(band)) for band in bands]
    return (
        tuple(float(moments["mean"][i]) for i in where),
        tuple(float(moments["std"][i]) for i in where),
    )
