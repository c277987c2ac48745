"""torchvision's Swin transformers v1 and v2 (arXiv 2103.14030, 2111.09883) with torchgeo's weights:
SatlasPretrain (arXiv 2211.15660), and Mask2Former on Cityscapes.

torchvision's attention uses the weights of its linear layers without calling the layers, so
adapters around them would have no effect. The attention here calls them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from geotune.backbones.bands import BandMatch
from geotune.backbones.base import Backbone, Emit, fingerprint
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.torchgeo.input_spec import apply_input_spec, match_input_bands
from geotune.backbones.torchgeo.weights_table import PUBLISHED_WEIGHTS
from geotune.backbones.weights import fill_missing_norm, load_weights, url_state_dict

HEADS = {96: [3, 6, 12, 24], 128: [4, 8, 16, 32]}  # of the four stages, by width
SHAPES: dict[str, dict[str, int]] = {
    "swin_t": {"width": 96, "third": 6, "window": 7},
    "swin_s": {"width": 96, "third": 18, "window": 7},
    "swin_b": {"width": 128, "third": 18, "window": 12},  # as its weights
    "swin_v2_t": {"width": 96, "third": 6, "window": 8},
    "swin_v2_b": {"width": 128, "third": 18, "window": 8},
}
"""Width of the first stage, depth of the third (the others have two blocks), window size."""
MODELS: dict[str, ModelInfo] = {
    name: published.info
    for name, published in PUBLISHED_WEIGHTS.items()
    if published.network in SHAPES
}


class SwinBackbone(Backbone):
    """The stages of a Swin transformer."""

    channels_last = True

    def __init__(
        self, model: nn.Module, spec: BackboneSpec, match: BandMatch, **kwargs: Any
    ) -> None:
        super().__init__(model, spec, size_divisor=32, **kwargs)
        features: Any = model.features
        # features: patch embedding, then stages alternating with patch merging
        self._stages = range(1, len(features), 2)
        apply_input_spec(self, PUBLISHED_WEIGHTS[spec.model].images, match)
        self.fingerprint = fingerprint(model)
        self.taps = self.find_taps()

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of every stage."""
        features: Any = self.model.features
        return [block for stage in self._stages for block in features[stage]]

    def downsample_before(self, index: int) -> nn.Module | None:
        """See `Backbone.downsample_before`."""
        features: Any = self.model.features
        for stage in self._stages[1:]:
            if self.blocks[index] is features[stage][0]:
                between: nn.Module = features[stage - 1]
                return between
        return None

    def run(
        self, images: Tensor, emit: Emit, out_indices: set[int], **_: Tensor | None
    ) -> Tensor | None:
        """See `Backbone.run`."""
        model: Any = self.model
        x = model.features[0](images)  # (B, h, w, C) from here on
        index, last = 0, len(self.blocks) - 1
        for stage in self._stages:
            if stage > 1:
                x = model.features[stage - 1](x)
            for block in model.features[stage]:
                x = block(x)
                if index == last:
                    x = model.norm(x)
                if index in out_indices:
                    emit(index, x.permute(0, 3, 1, 2))
                index += 1
        return None


class _CallsLinearLayers:
    """torchvision's shifted window attention, which calls its linear layers."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """Maps `(B, h, w, C)` to maps of that shape."""
        batch, height, width, channels = x.shape
        high, wide = self.window_size
        x = F.pad(x, (0, 0, 0, -width % wide, 0, -height % high))
        rows, columns = x.shape[1:3]
        # a window that covers the whole map is not shifted
        down = self.shift_size[0] if high < rows else 0
        right = self.shift_size[1] if wide < columns else 0
        x = x.roll((-down, -right), (1, 2))
        windows = _windows(x, high, wide)
        count = windows.shape[1]
        qkv = self.qkv(windows.flatten(0, 1)).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B windows, heads, tokens, C / heads) each
        scores = self.scores(q, k) + self.get_relative_position_bias()
        if down or right:
            # no attention between regions that only the shift made adjacent
            vertical = _shift_regions(rows, high, down, x.device)
            horizontal = _shift_regions(columns, wide, right, x.device)
            region = (3 * vertical[:, None] + horizontal)[None, ..., None]
            region = _windows(region, high, wide)[0, ..., 0]
            mask = -100.0 * (region[:, None, :] != region[:, :, None])
            scores = scores.unflatten(0, (batch, count)) + mask[:, None].to(scores.dtype)
            scores = scores.flatten(0, 1)
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = self.proj(out).unflatten(1, (high, wide)).unflatten(0, (batch, rows // high, -1))
        out = out.transpose(2, 3).reshape(batch, rows, columns, channels)
        out = out.roll((down, right), (1, 2))
        kept: Tensor = out[:, :height, :width].contiguous()
        return kept


def _windows(x: Tensor, high: int, wide: int) -> Tensor:
    """`(B, h, w, C)` to `(B, windows, high * wide, C)`."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows // high, high, columns // wide, wide, channels)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shift_regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Region of each row or column after the shift; 1 and 2 share windows but are not adjacent."""
    region = torch.zeros(length, device=device)
    if shift:
        region[-window:-shift] = 1
        region[-shift:] = 2
    return region


class _Attention(_CallsLinearLayers, ShiftedWindowAttention):  # type: ignore[misc]
    """Swin v1: scaled dot product of queries and keys."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """`(B, heads, N, C)` each to `(B, heads, N, N)`."""
        product: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return product


class _AttentionV2(_CallsLinearLayers, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """Swin v2: cosine similarity with a learned scale."""

    def __init__(self, dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, *args, **kwargs)
        self.qkv = _QkvWithoutKeyBias(dim, 3 * dim)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """`(B, heads, N, C)` each to `(B, heads, N, N)`."""
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scaled: Tensor = cosine * self.logit_scale.clamp(max=math.log(100.0)).exp()
        return scaled


class _QkvWithoutKeyBias(nn.Linear):
    """Queries, keys and values; the keys' bias is fixed at zero."""

    has_key_bias = False

    def forward(self, x: Tensor) -> Tensor:
        """`(..., C)` to `(..., 3 C)`."""
        q, k, v = self.bias.chunk(3)
        return F.linear(x, self.weight, torch.cat([q, torch.zeros_like(k), v]))


def swin_backbone(spec: BackboneSpec) -> SwinBackbone:
    """Build a Swin transformer; `weights` is a checkpoint published by torchgeo."""
    published = PUBLISHED_WEIGHTS[spec.model]
    spec.allow_only(*published.info.supported_options)
    match = match_input_bands(spec, published.images)
    model = build_network(published.network, len(published.images.bands))
    source: str | None = None
    notes: tuple[str, ...] = ()
    if spec.loads_weights:
        state, source = url_state_dict(spec, published.info.weights)
        notes = fill_missing_norm(state, model)
        load_weights(model, state, source, spec.name)
    first: Any = model.features
    embedding = first[0][0]
    embedding.weight = nn.Parameter(match.fit_weight(embedding.weight.detach()))
    embedding.in_channels = len(spec.bands)
    backbone = SwinBackbone(model, spec, match, licence=published.info.licence, source=source)
    backbone.notes += notes
    return backbone


def build_network(network: str, bands: int) -> nn.Module:
    """The network without its classifier."""
    shape = SHAPES[network]
    width, window = shape["width"], shape["window"]
    second = network.startswith("swin_v2")
    block = SwinTransformerBlockV2 if second else SwinTransformerBlock
    model: nn.Module = SwinTransformer(
        patch_size=[4, 4],
        embed_dim=width,
        depths=[2, 2, shape["third"], 2],
        num_heads=HEADS[width],
        window_size=[window, window],
        stochastic_depth_prob=0.0,
        num_classes=1,
        block=partial(block, attn_layer=_AttentionV2 if second else _Attention),
        downsample_layer=PatchMergingV2 if second else PatchMerging,
    )
    first: Any = model.features
    first[0][0] = nn.Conv2d(bands, width, kernel_size=4, stride=4)
    model.head = nn.Identity()
    return model
