"""Clay v1 and v1.5 (github.com/Clay-foundation/model, no paper): masked autoencoders whose patch
embedding is generated from the wavelengths of the bands, so that they accept any bands."""

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import canonical_band, wavelength_um
from geotune.backbones.base import Backbone, Emit, fingerprint, run_blocks
from geotune.backbones.blocks import TokenLayout, after_class_token
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import encoder_state, hub_state_dict, load_weights
from geotune.errors import GeotuneError

PATCH = 8
DEFAULT_GSD_M = 10.0  # of Sentinel-2, most of the pretraining data
_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_MEAN = (1105.0, 1355.0, 1552.0, 1887.0, 2422.0, 2630.0, 2743.0, 2785.0, 2388.0, 1835.0)
_STD = (1809.0, 1757.0, 1888.0, 1870.0, 1732.0, 1697.0, 1742.0, 1648.0, 1470.0, 1379.0)
# values used in pretraining; those of radar only distinguish VV and VH from other bands
_WAVELENGTHS_UM = {"B02": 0.493, "B05": 0.704, "VV": 3.5, "VH": 4.0}


def _info(hub: str) -> ModelInfo:
    return ModelInfo(
        paper="Clay, an open source model of Earth, doi 10.57967/hf/1537",
        licence=f"Apache-2.0 (Clay-foundation/model's README; the page of {hub} says OpenRAIL)"
        if hub
        else "no weights are published",
        weights=hub,
        bands=_BANDS,
        mean=_MEAN,
        std=_STD,
        metadata=("time", "location"),
        supported_options=("wavelengths", "gsd"),
    )


MODELS: dict[str, ModelInfo] = {
    "clay_v1_base": _info("made-with-clay/Clay-legacy"),
    "clay_v15_tiny": _info(""),
    "clay_v15_small": _info(""),
    "clay_v15_base": _info(""),
    "clay_v15_large": _info("made-with-clay/Clay"),
}
_FILES = {"clay_v1_base": "v1/clay-v1-base.ckpt", "clay_v15_large": "v1.5/clay-v1.5.ckpt"}
SHAPES: dict[str, dict[str, int]] = {
    "clay_v1_base": {"dim": 768, "depth": 12, "heads": 12, "dim_head": 64, "mlp_ratio": 4},
    "clay_v15_tiny": {"dim": 192, "depth": 6, "heads": 4, "dim_head": 48, "mlp_ratio": 2},
    "clay_v15_small": {"dim": 384, "depth": 6, "heads": 6, "dim_head": 64, "mlp_ratio": 2},
    "clay_v15_base": {"dim": 768, "depth": 12, "heads": 12, "dim_head": 64, "mlp_ratio": 4},
    "clay_v15_large": {"dim": 1024, "depth": 24, "heads": 16, "dim_head": 64, "mlp_ratio": 4},
}


class ClayBlock(nn.ModuleList):
    """A layer, which TerraTorch stores as a list of attention and MLP, as a callable block."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens of the same shape."""
        attention, mlp = self
        x = attention(x) + x
        out: Tensor = mlp(x) + x
        return out


class ClayBackbone(Backbone):
    """Clay's encoder, without masking."""

    token_layout = TokenLayout(prefix=1)

    def __init__(self, model: nn.Module, spec: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, spec, size_divisor=PATCH, **kwargs)
        encoder: Any = model
        layers = encoder.transformer.layers
        encoder.transformer.layers = nn.ModuleList(ClayBlock(layer) for layer in layers)
        self.register_buffer("wavelengths_um", torch.tensor(_wavelengths(spec)), persistent=False)
        self.gsd_m = spec.gsd or DEFAULT_GSD_M
        if spec.gsd is None:
            note = f"using a ground sampling distance of {DEFAULT_GSD_M:g} m"
            self.notes = (f"backbone.gsd is not set: {note}",)
        own = [canonical_band(band) for band in self.bands]
        if all(band in _BANDS for band in own):
            means = tuple(_MEAN[_BANDS.index(band)] for band in own)
            stds = tuple(_STD[_BANDS.index(band)] for band in own)
            self.set_statistics(means, stds)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer layers."""
        model: Any = self.model
        return list(model.transformer.layers)

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
        rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        x, _ = model.to_patch_embed(images, self.wavelengths_um)
        x = x + self.encodings(images.shape[0], rows, columns, time, location).to(x)
        x = torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        to_map = partial(after_class_token, grid=(rows, columns))
        norm = model.transformer.norm
        return run_blocks(x, self.blocks, norm, to_map, emit, out_indices)[:, :1]

    def encodings(
        self, batch: int, rows: int, columns: int, time: Tensor | None, location: Tensor | None
    ) -> Tensor:
        """Encodings of position, time and location `(B, rows * columns, D)`.

        Time and location are 8 numbers: sine and cosine of week, hour, latitude and longitude;
        unknown ones are zero, as in pretraining. The hour is always unknown.
        """
        from terratorch.models.backbones.clay_v15.utils import posemb_sincos_2d_with_gsd

        model: Any = self.model
        # absolute positions, so images of any shape need no resampling
        position = posemb_sincos_2d_with_gsd(
            rows, columns, dim=model.dim - 8, gsd=torch.tensor(self.gsd_m)
        )
        time_encoding = location_encoding = torch.zeros(batch, 4)
        if time is not None:
            weeks = [_week(year, day) for year, day in time[:, 0].tolist()]
            angle = torch.tensor(weeks)[:, None] * (2 * math.pi / 52)
            time_encoding = torch.cat([angle.sin(), angle.cos(), torch.zeros(batch, 2)], dim=1)
        if location is not None:
            longitude, latitude = torch.deg2rad(location.cpu()).T[:, :, None]
            location_encoding = torch.cat(
                [latitude.sin(), latitude.cos(), longitude.sin(), longitude.cos()], dim=1
            )
        metadata = torch.cat([time_encoding, location_encoding], dim=1)
        return torch.cat(
            [position.expand(batch, -1, -1), metadata[:, None].expand(-1, len(position), -1)],
            dim=-1,
        )


def _week(year: float, day: float) -> float:
    """ISO week, 1 to 53, of a day of the year."""
    return float((date(int(year), 1, 1) + timedelta(days=int(day) - 1)).isocalendar().week)


def _wavelengths(spec: BackboneSpec) -> list[float]:
    """Wavelengths of the bands in micrometres: as specified, else by name."""
    given = {canonical_band(band): value for band, value in spec.wavelengths.items()}
    own = [canonical_band(band) for band in spec.bands]
    values = [given.get(b) or _WAVELENGTHS_UM.get(b) or wavelength_um(b) for b in own]
    unknown = [band for band, value in zip(spec.bands, values, strict=True) if value is None]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: {spec.name} needs the wavelength of {', '.join(unknown)}; set it in "
            f"micrometres with backbone.wavelengths, such as {{{unknown[0]}: 0.56}}, or use "
            "Sentinel-2 band names",
            code="band-unknown",
            key="backbone.wavelengths",
        )
    large = [f"{b} {v:g}" for b, v in zip(spec.bands, values, strict=True) if v and v > 100]
    if large:
        raise GeotuneError(
            f"backbone.wavelengths {', '.join(large)}: seem to be nanometres; use micrometres",
            code="backbone-option",
            key="backbone.wavelengths",
        )
    return [float(value) for value in values if value is not None]


def clay_backbone(spec: BackboneSpec) -> ClayBackbone:
    """Build a Clay encoder; `weights` is the published checkpoint, or only its encoder."""
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options, metadata=info.metadata)
    _wavelengths(spec)
    shape = SHAPES[spec.model]
    model: nn.Module
    if spec.model.startswith("clay_v15"):
        from terratorch.models.backbones.clay_v15.model import Encoder

        model = Encoder(mask_ratio=0.0, patch_size=PATCH, shuffle=False, **shape)
    else:
        from terratorch.models.backbones.clay_v1.modules import EmbeddingEncoder

        model = EmbeddingEncoder(img_size=256, patch_size=PATCH, **shape)
    source = None
    if spec.loads_weights:
        state, source = hub_state_dict(spec, info.weights, _FILES.get(spec.model, ""))
        # from Clay's whole model or TerraTorch's wrapper
        state = encoder_state(state, "model.encoder.", "clay_encoder.", "encoder.")
        load_weights(model, state, source, spec.name)
    return ClayBackbone(model, spec, licence=info.licence, source=source)
