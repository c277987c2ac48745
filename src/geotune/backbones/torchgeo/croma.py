"""CROMA (arXiv 2311.00566): contrastive masked autoencoders of Sentinel-1, of Sentinel-2, and of
both together.

The taps are the blocks in the order in which they run: Sentinel-1's, Sentinel-2's and, given both,
those of the joint encoder. The last tap of each encoder includes its norm. Positions are attention
biases by distance (2D ALiBi), computed here for the grid of the image, so images may have any
size; pretraining used 120 by 120 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, canonical_band, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import BlockParts
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import load_published_weights
from geotune.errors import GeotuneError

BANDS: dict[str, tuple[str, ...]] = {
    "S1": ("VV", "VH"),
    "S2": (
        *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A"),
        *("B09", "B11", "B12"),
    ),
}
_ENCODERS = {"S1": "s1_encoder", "S2": "s2_encoder"}
_TORCHGEO = {"S1": "sar", "S2": "optical"}
PATCH = 8

SHAPES: dict[str, dict[str, int]] = {
    "croma_base": {"encoder_dim": 768, "encoder_depth": 12, "num_heads": 16},
    "croma_large": {"encoder_dim": 1024, "encoder_depth": 24, "num_heads": 16},
}
_HUB = "https://huggingface.co/torchgeo/croma/resolve"
_FILES = {
    "croma_base": "387883f08af79d777167519c57cd826eda89a16f/CROMA_base-0238d814.pt",
    "croma_large": "92cb1a0f4e34c6c01558baf070197c01255382f6/CROMA_large-921e69ad.pt",
}
MODELS: dict[str, ModelInfo] = {
    name: ModelInfo(
        paper="CROMA, arXiv 2311.00566",
        licence="CC-BY-4.0 (torchgeo's documentation)",
        weights=f"{_HUB}/{file}",
        modalities=BANDS,
        supported_options=("modalities", "new_bands"),
    )
    for name, file in _FILES.items()
}


class CromaBackbone(Backbone):
    """CROMA's encoders of the modalities in use."""

    def __init__(
        self,
        model: nn.Module,
        spec: BackboneSpec,
        channels: Mapping[str, list[int]],
        notes: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        super().__init__(model, spec, size_divisor=PATCH, **kwargs)
        encoder: Any = model
        self.heads = int(encoder.num_heads)
        self._channels = dict(channels)
        names = [f"{_ENCODERS[name]}.transformer" for name in self._channels]
        if len(names) == 2:
            names.append("joint_encoder")
        self._transformers = names
        for name in names:
            transformer: Any = model.get_submodule(name)
            kind = CromaJointBlock if name == "joint_encoder" else CromaBlock
            transformer.layers = nn.ModuleList(kind(layer) for layer in transformer.layers)
        self.notes = notes
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    def _layers(self, transformer: str) -> list[nn.Module]:
        return list(self.model.get_submodule(transformer).layers)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of every encoder."""
        return [block for name in self._transformers for block in self._layers(name)]

    def block_parts(self, index: int) -> BlockParts:
        """See `Backbone.block_parts`; attention includes that to the other modality."""
        return (
            BlockParts("0", "2", "2")
            if isinstance(self.blocks[index], CromaJointBlock)
            else BlockParts("0", "1", "1")
        )

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """CROMA scales the mean +- 2 standard deviations of an image to [0, 1]."""
        return (0.5,) * len(self.bands), (0.25,) * len(self.bands)

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        bias = distance_bias(grid, self.heads, images.device)
        first = 0

        def run_encoder(name: str, x: Tensor, *context: Tensor) -> Tensor:
            nonlocal first
            transformer: Any = self.model.get_submodule(name)
            blocks = self._layers(name)
            for index, block in enumerate(blocks):
                x = block(x, bias, *context)
                if index == len(blocks) - 1:
                    x = transformer.norm_out(x)
                if first + index in out_indices:
                    emit(first + index, x.transpose(1, 2).reshape(x.shape[0], -1, *grid))
            first += len(blocks)
            return x

        encoded = []
        for modality, channels in self._channels.items():
            encoder: Any = self.model.get_submodule(_ENCODERS[modality])
            patches = images[:, channels].unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
            patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
            encoded.append(
                run_encoder(f"{_ENCODERS[modality]}.transformer", encoder.linear_input(patches))
            )
        if len(encoded) == 2:
            run_encoder("joint_encoder", encoded[0], encoded[1])
        return None


class CromaBlock(nn.ModuleList):
    """CROMA's attention and MLP as a callable block."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens `(B, N, D)` and the bias of the attention `(1, heads, N, N)`."""
        attention, mlp = self
        x = attention(x, bias) + x
        out: Tensor = mlp(x) + x
        return out


class CromaJointBlock(nn.ModuleList):
    """A block with cross-attention to the other modality between attention and MLP."""

    def forward(self, x: Tensor, bias: Tensor, context: Tensor) -> Tensor:
        """Tokens and those of the other modality `(B, N, D)`, and the bias `(1, heads, N, N)`."""
        attention, across, mlp = self
        x = attention(x, bias) + x
        x = across(x, context, bias) + x
        out: Tensor = mlp(x) + x
        return out


def distance_bias(grid: tuple[int, int], heads: int, device: torch.device) -> Tensor:
    """2D ALiBi `(1, heads, N, N)`: the negative distance in patches times a slope per head.

    The slopes are a geometric series from r with ratio r = 2 ** (-8 / heads).
    """
    rows, columns = (torch.arange(side, dtype=torch.float32, device=device) for side in grid)
    down = (rows[:, None] - rows)[:, None, :, None]
    across = (columns[:, None] - columns)[None, :, None, :]
    distance = (down**2 + across**2).sqrt().reshape(math.prod(grid), -1)
    ratio = 2.0 ** (-8 / heads)
    slopes = torch.tensor([ratio ** (i + 1) for i in range(heads)], device=device)
    return (-slopes[:, None, None] * distance)[None]


def croma_backbone(spec: BackboneSpec) -> CromaBackbone:
    """Build CROMA for the modalities of the bands; `weights` is the published checkpoint."""
    with spec.imports_provider():
        from torchgeo.models import CROMA
    info = MODELS[spec.model]
    spec.allow_only(*info.supported_options)
    channels = _channels(spec)
    matches = {
        name: match_bands(spec.with_bands([spec.bands[i] for i in own]), BANDS[name])
        for name, own in channels.items()
    }
    # its attention biases for a fixed image size are not used
    model = CROMA([_TORCHGEO[m] for m in channels], **SHAPES[spec.model], image_size=PATCH)
    del model.attn_bias
    for name in ("s1_GAP_FFN", "s2_GAP_FFN"):
        if hasattr(model, name):
            delattr(model, name)  # applied after pooling
    source = load_published_weights(model, spec, info.weights)
    for name, match in matches.items():
        _fit_input(getattr(model, _ENCODERS[name]).linear_input, match, len(BANDS[name]))
    notes = tuple(match.note for match in matches.values() if match.note)
    return CromaBackbone(model, spec, channels, notes, licence=info.licence, source=source)


def _channels(spec: BackboneSpec) -> dict[str, list[int]]:
    """Image channels of each modality, Sentinel-1 first.

    Unknown bands without a modality are assigned to Sentinel-2 if it has any band.
    """
    unknown = [name for name in spec.modalities if name not in BANDS]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: {spec.name} does not know the modality {', '.join(unknown)}; it "
            f"knows {', '.join(BANDS)}",
            code="band-unknown",
            key="backbone.bands",
        )
    match_bands(spec, [*BANDS["S1"], *BANDS["S2"]])
    if spec.modalities:
        modality = {band: name for name, members in spec.modalities.items() for band in members}
    else:
        own = {band: name for name, members in BANDS.items() for band in members}
        named = [own[canonical_band(band)] for band in spec.bands if canonical_band(band) in own]
        modality = {band: own.get(canonical_band(band), max(named)) for band in spec.bands}
    channels = {
        name: [i for i, band in enumerate(spec.bands) if modality[band] == name] for name in BANDS
    }
    return {name: indices for name, indices in channels.items() if indices}


def _fit_input(layer: nn.Linear, match: BandMatch, num_bands: int) -> None:
    """Adapt the patch embedding `(D, bands * 64)` to the images' bands."""
    weight = layer.weight.detach()
    weight = match.fit_weight(weight.reshape(len(weight), num_bands, -1)).flatten(1)
    layer.weight = nn.Parameter(weight)
    layer.in_features = weight.shape[1]
