"""CROMA (arXiv 2311.00566): contrastive masked autoencoders of Sentinel-1, of Sentinel-2, and of
both together.

The taps are the blocks in the order in which they run: Sentinel-1's, Sentinel-2's, and, given both,
those of the encoder that joins them. Each of the three ends with its norm. Positions are biases of
the attention by distance (2D ALiBi), made here for the grid at hand, so images may have any size;
the pretraining had 120 by 120 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.bands import BandMatch, canonical, match_bands
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.blocks import BlockParts
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.pretrained import published_state
from geotune.backbones.weights import load_state
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
        request: BackboneSpec,
        channels: Mapping[str, list[int]],
        notes: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        super().__init__(model, request, size_divisor=PATCH, **kwargs)
        encoder: Any = model
        self.heads = int(encoder.num_heads)
        self._channels = dict(channels)
        names = [f"{_ENCODERS[name]}.transformer" for name in self._channels]
        if len(names) == 2:
            names.append("joint_encoder")
        self._transformers = names
        for name in names:
            transformer: Any = model.get_submodule(name)
            kind = _JoinBlock if name == "joint_encoder" else _Block
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

    def parts(self, index: int) -> BlockParts:
        """See `Backbone.parts`; attention to the other modality counts as attention."""
        return (
            BlockParts("0", "2", "2")
            if isinstance(self.blocks[index], _JoinBlock)
            else BlockParts("0", "1", "1")
        )

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """CROMA brings two standard deviations around an image's mean to [0, 1]."""
        return (0.5,) * len(self.bands), (0.25,) * len(self.bands)

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        bias = distance_bias(grid, self.heads, images.device)
        first = 0

        def through(name: str, x: Tensor, *context: Tensor) -> Tensor:
            nonlocal first
            transformer: Any = self.model.get_submodule(name)
            blocks = self._layers(name)
            for index, block in enumerate(blocks):
                x = block(x, bias, *context)
                if index == len(blocks) - 1:
                    x = transformer.norm_out(x)
                if first + index in out_indices:
                    emit(first + index, x.transpose(1, 2).reshape(len(x), -1, *grid))
            first += len(blocks)
            return x

        encoded = []
        for modality, channels in self._channels.items():
            encoder: Any = self.model.get_submodule(_ENCODERS[modality])
            patches = images[:, channels].unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
            patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
            encoded.append(
                through(f"{_ENCODERS[modality]}.transformer", encoder.linear_input(patches))
            )
        if len(encoded) == 2:
            through("joint_encoder", encoded[0], encoded[1])
        return None


class _Block(nn.ModuleList):
    """CROMA's attention and MLP as a block that can be called."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens `(B, N, D)` and the bias of the attention `(1, heads, N, N)`."""
        attention, mlp = self
        x = attention(x, bias) + x
        out: Tensor = mlp(x) + x
        return out


class _JoinBlock(nn.ModuleList):
    """The same with attention to the other modality's tokens in between."""

    def forward(self, x: Tensor, bias: Tensor, context: Tensor) -> Tensor:
        """Tokens and those of the other modality `(B, N, D)`, and the bias `(1, heads, N, N)`."""
        attention, across, mlp = self
        x = attention(x, bias) + x
        x = across(x, context, bias) + x
        out: Tensor = mlp(x) + x
        return out


def distance_bias(grid: tuple[int, int], heads: int, device: torch.device) -> Tensor:
    """2D ALiBi `(1, heads, N, N)`: minus the distance in patches times a slope of each head.

    The slopes are a geometric series from r with ratio r = 2 ** (-8 / heads).
    """
    rows, columns = (torch.arange(side, dtype=torch.float32, device=device) for side in grid)
    down = (rows[:, None] - rows)[:, None, :, None]
    across = (columns[:, None] - columns)[None, :, None, :]
    distance = (down**2 + across**2).sqrt().reshape(math.prod(grid), -1)
    ratio = 2.0 ** (-8 / heads)
    slopes = torch.tensor([ratio ** (i + 1) for i in range(heads)], device=device)
    return (-slopes[:, None, None] * distance)[None]


def croma_backbone(request: BackboneSpec) -> CromaBackbone:
    """Build CROMA for the modalities of the bands; `weights` is a checkpoint as published."""
    try:
        from torchgeo.models import CROMA
    except ImportError as error:
        raise request.not_installed(error) from error
    facts = MODELS[request.model]
    request.allow_only(*facts.supported_options)
    channels = _channels(request)
    fits = {
        name: match_bands(replace(request, bands=tuple(request.bands[i] for i in own)), BANDS[name])
        for name, own in channels.items()
    }
    # the biases it would make for its image size are not used
    model = CROMA([_TORCHGEO[m] for m in channels], **SHAPES[request.model], image_size=PATCH)
    del model.attn_bias
    for name in ("s1_GAP_FFN", "s2_GAP_FFN"):
        if hasattr(model, name):
            delattr(model, name)  # what comes after pooling
    source = None
    if request.loads_weights:
        state, source = published_state(request, facts.weights)
        load_state(model, state, source, request.name)
    for name, fit in fits.items():
        _fit_input(getattr(model, _ENCODERS[name]).linear_input, fit, len(BANDS[name]))
    notes = tuple(fit.note for fit in fits.values() if fit.note)
    return CromaBackbone(model, request, channels, notes, licence=facts.licence, source=source)


def _channels(request: BackboneSpec) -> dict[str, list[int]]:
    """Which channels of the images are of which modality, Sentinel-1 first.

    Where the bands are not named by modality, a band that CROMA never saw goes with Sentinel-2's,
    if there are any.
    """
    strangers = [name for name in request.modalities if name not in BANDS]
    if strangers:
        raise GeotuneError(
            f"backbone.bands: {request.name} does not know the modality {', '.join(strangers)}; "
            f"it knows {', '.join(BANDS)}"
        )
    match_bands(request, [*BANDS["S1"], *BANDS["S2"]])
    if request.modalities:
        of = {band: name for name, members in request.modalities.items() for band in members}
    else:
        own = {band: name for name, members in BANDS.items() for band in members}
        named = [own[canonical(band)] for band in request.bands if canonical(band) in own]
        of = {band: own.get(canonical(band), max(named)) for band in request.bands}
    found = {name: [i for i, b in enumerate(request.bands) if of[b] == name] for name in BANDS}
    return {name: own for name, own in found.items() if own}


def _fit_input(layer: nn.Linear, fit: BandMatch, known: int) -> None:
    """Fit the embedding of patches `(D, bands * 64)`, band by band."""
    weight = layer.weight.detach()
    weight = fit.weight(weight.reshape(len(weight), known, -1)).flatten(1)
    layer.weight = nn.Parameter(weight)
    layer.in_features = weight.shape[1]
