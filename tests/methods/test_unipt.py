"""UniPT against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.unipt import ParallelAttention, Unipt
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def linear_norm(layers: nn.Module, x: Tensor) -> Tensor:
    """LN(W x + b) of tokens `(N, C)`."""
    p = dict(layers.named_parameters())
    y = x @ p["0.weight"][..., 0, 0].T + p["0.bias"]
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return y * p["1.weight"] + p["1.bias"]


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_maps_match_the_formula(make_backbone: MakeBackbone, family: str) -> None:
    """A_i = l1(relu(z_L z_i')) + 1; c = softmax(w . (mean z_L * mean z_i));
    y = x + Up(relu(z_L + LN(W_p sum c_i A_i z_i)))."""
    encoder = Unipt(reduction=4, stem_width=0).attach(make_backbone(family)).eval()
    side = encoder.reader
    assert isinstance(side, ParallelAttention)
    generator = torch.Generator().manual_seed(1)
    for parameter in side.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    images = torch.randn(1, 4, 64, 96, generator=generator)
    with torch.no_grad():
        actual = encoder(images).maps
        features = encoder.backbone(images).maps
        height, width = features[-1].shape[-2:]
        z = []
        for down, x in zip(side.down, features, strict=True):
            tokens = linear_norm(down, x[0].flatten(1).T)
            share = x.shape[-1] // width  # pixels of this map in one of the last map
            blocks = tokens.T.reshape(-1, height, share, width, share)
            z.append(blocks.mean((2, 4)).flatten(1).T)
        logits, merged = [], []
        for early in z[:-1]:
            attention = (z[-1] @ early.T).clamp(min=0)
            attention = attention / attention.sum(1, keepdim=True).clamp(min=1e-12)
            merged.append((attention + torch.eye(len(early))) @ early)
            w = side.confidence.weight[0]
            logits.append((w * z[-1].mean(0) * early.mean(0)).sum())
        c = torch.stack(logits).exp() / torch.stack(logits).exp().sum()
        total = sum(weight * m for weight, m in zip(c, merged, strict=True))
        assert isinstance(total, Tensor)
        s = (z[-1] + linear_norm(side.project, total)).clamp(min=0)
        for level, got in zip(side.levels, actual, strict=True):
            up = dict(side.up[str(level)].named_parameters())
            change = s @ up["weight"][..., 0, 0].T + up["bias"]
            change = change.T.reshape(1, -1, height, width)
            change = F.interpolate(change, got.shape[-2:], mode="bilinear")
            torch.testing.assert_close(got, features[level] + change, rtol=1e-3, atol=1e-3)


def test_a_single_earlier_block_needs_no_confidence(make_backbone: MakeBackbone) -> None:
    encoder = Unipt(stem_width=0).attach(make_backbone("timm/small_beit"))
    assert len(encoder.backbone.taps) == 2
    assert not any("confidence" in name for name in encoder.trainable_names())


def test_reduction_below_one_channel_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.reduction", mentions=[17, 16]):
        Unipt(reduction=17).attach(make_backbone("swin"))
