"""Clay v1 and v1.5 (github.com/Clay-foundation/model, no paper): masked autoencoders that make
their patch embedding from the wavelengths of the bands, so that any bands fit."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import canonical, wavelength
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import Tokens
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import hub_state, load_state
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, Normalization

PATCH = 8
GSD_M = 10.0  # Sentinel-2's, most of what Clay was trained on
_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_MEAN = (1105.0, 1355.0, 1552.0, 1887.0, 2422.0, 2630.0, 2743.0, 2785.0, 2388.0, 1835.0)
_STD = (1809.0, 1757.0, 1888.0, 1870.0, 1732.0, 1697.0, 1742.0, 1648.0, 1470.0, 1379.0)
# as Clay was told them, in micrometres; for radar they only tell VV and VH from the rest
_MICROMETRES = {"B02": 0.493, "B05": 0.704, "VV": 3.5, "VH": 4.0}


def _facts(hub: str) -> ModelInfo:
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
    "clay_v1_base": _facts("made-with-clay/Clay-legacy"),
    "clay_v15_tiny": _facts(""),
    "clay_v15_small": _facts(""),
    "clay_v15_base": _facts(""),
    "clay_v15_large": _facts("made-with-clay/Clay"),
}
_FILES = {
    "clay_v1_base": "v1/clay-v1-base.ckpt",
    "clay_v15_large": "v1.5/clay-v1.5.ckpt",
}
SHAPES: dict[str, dict[str, int]] = {
    "clay_v1_base": {"dim": 768, "depth": 12, "heads": 12, "dim_head": 64, "mlp_ratio": 4},
    "clay_v15_tiny": {"dim": 192, "depth": 6, "heads": 4, "dim_head": 48, "mlp_ratio": 2},
    "clay_v15_small": {"dim": 384, "depth": 6, "heads": 6, "dim_head": 64, "mlp_ratio": 2},
    "clay_v15_base": {"dim": 768, "depth": 12, "heads": 12, "dim_head": 64, "mlp_ratio": 4},
    "clay_v15_large": {"dim": 1024, "depth": 24, "heads": 16, "dim_head": 64, "mlp_ratio": 4},
}


class _Block(nn.ModuleList):
    """Attention and MLP of one layer, which TerraTorch keeps as a list, as one block."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens of the same shape."""
        attention, mlp = self
        x = attention(x) + x
        out: Tensor = mlp(x) + x
        return out


class ClayBackbone(Backbone):
    """Clay's encoder, without masking."""

    tokens = Tokens(prefix=1)

    def __init__(self, model: nn.Module, request: BackboneSpec, **kwargs: Any) -> None:
        super().__init__(model, request, size_divisor=PATCH, **kwargs)
        encoder: Any = model
        layers = encoder.transformer.layers
        encoder.transformer.layers = nn.ModuleList(_Block(layer) for layer in layers)
        self.register_buffer(
            "wavelengths_um", torch.tensor(_wavelengths(request)), persistent=False
        )
        self.gsd_m = request.gsd or GSD_M
        notes = []
        if request.gsd is None:
            notes.append(
                f"no ground sampling distance is given: Clay is told {GSD_M:g} m a pixel "
                "(backbone.gsd)"
            )
        own = [canonical(band) for band in self.bands]
        if all(band in _BANDS for band in own):
            means = tuple(_MEAN[_BANDS.index(band)] for band in own)
            stds = tuple(_STD[_BANDS.index(band)] for band in own)
            self.normalization = Normalization(self.bands, means, stds)
            self.pretraining = BandStatistics(self.bands, means, stds, pixels=0)
        self.notes = tuple(notes)
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
        x = x + self._encodings(len(images), rows, columns, time, location).to(x)
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
        last = len(model.transformer.layers) - 1
        for index, block in enumerate(model.transformer.layers):
            x = block(x)
            if index == last:
                x = model.transformer.norm(x)
            if index in out_indices:
                emit(index, x[:, 1:].transpose(1, 2).reshape(len(x), -1, rows, columns))
        tokens: Tensor = x[:, :1]
        return tokens

    def _encodings(
        self, batch: int, rows: int, columns: int, time: Tensor | None, location: Tensor | None
    ) -> Tensor:
        """Place in the image, time and location `(B, rows * columns, D)`.

        Time and location are 8 numbers: sine and cosine of week, hour, latitude and longitude,
        zero where they are not known, as in pretraining. The hour never is.
        """
        from terratorch.models.backbones.clay_v15.utils import posemb_sincos_2d_with_gsd

        model: Any = self.model
        # absolute positions, so images of any shape need no resampling
        place = posemb_sincos_2d_with_gsd(
            rows, columns, dim=model.dim - 8, gsd=torch.tensor(self.gsd_m)
        )
        when = where = torch.zeros(batch, 4)
        if time is not None:
            weeks = [_week(year, day) for year, day in time[:, 0].tolist()]
            angle = torch.tensor(weeks)[:, None] * (2 * math.pi / 52)
            when = torch.cat([angle.sin(), angle.cos(), torch.zeros(batch, 2)], dim=1)
        if location is not None:
            longitude, latitude = torch.deg2rad(location.cpu()).T[:, :, None]
            where = torch.cat(
                [latitude.sin(), latitude.cos(), longitude.sin(), longitude.cos()], dim=1
            )
        known = torch.cat([when, where], dim=1)
        return torch.cat(
            [place.expand(batch, -1, -1), known[:, None].expand(-1, len(place), -1)], dim=-1
        )


def _week(year: float, day: float) -> float:
    """ISO week of a day of the year, 1 to 53."""
    return float((date(int(year), 1, 1) + timedelta(days=int(day) - 1)).isocalendar().week)


def _wavelengths(request: BackboneSpec) -> list[float]:
    """Wavelengths of the images' bands in micrometres: those given, else by the bands' names."""
    given = {canonical(band): value for band, value in request.wavelengths.items()}
    own = [canonical(band) for band in request.bands]
    found = [given.get(b) or _MICROMETRES.get(b) or wavelength(b) for b in own]
    silent = [band for band, value in zip(request.bands, found, strict=True) if value is None]
    if silent:
        raise GeotuneError(
            f"backbone.bands: {request.name} needs the wavelength of {', '.join(silent)}; give it "
            f"in micrometres with backbone.wavelengths, such as {{{silent[0]}: 0.56}}, or name "
            "the bands as Sentinel-2 does"
        )
    far = [f"{b} {v:g}" for b, v in zip(request.bands, found, strict=True) if v and v > 100]
    if far:
        raise GeotuneError(
            f"backbone.wavelengths {', '.join(far)}: these look like nanometres; give micrometres"
        )
    return [float(value) for value in found if value is not None]


def clay_backbone(request: BackboneSpec) -> ClayBackbone:
    """Build a Clay encoder; `weights` is a checkpoint as published, or one of its encoder."""
    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options, metadata=facts.metadata)
    _wavelengths(request)
    shape = SHAPES[request.model]
    model: nn.Module
    if request.model.startswith("clay_v15"):
        from terratorch.models.backbones.clay_v15.model import Encoder

        model = Encoder(mask_ratio=0.0, patch_size=PATCH, shuffle=False, **shape)
    else:
        from terratorch.models.backbones.clay_v1.modules import EmbeddingEncoder

        model = EmbeddingEncoder(img_size=256, patch_size=PATCH, **shape)
    source = None
    if request.loads_weights:
        state, source = hub_state(request, facts.weights, _FILES.get(request.model, ""))
        load_state(model, _of_the_encoder(state), source, request.name)
    return ClayBackbone(model, request, licence=facts.licence, source=source)


def _of_the_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights, out of Clay's whole model or TerraTorch's wrapper."""
    for prefix in ("model.encoder.", "clay_encoder.", "encoder."):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner
    return state
