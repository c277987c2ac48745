"""Rein against its formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from geotune.backbones.base import Backbone
from geotune.methods.rein import Rein
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def test_block_output_matches_the_formula(make_backbone: MakeBackbone) -> None:
    """f' = f + a MLP_f(S[:, 1:] MLP_t(T[1:]) + f), S = softmax(f T' / sqrt(C)), T = A B; the class
    token stays."""
    encoder = Rein(num_tokens=3, rank=2, stem_width=0).attach(make_backbone("vit")).eval()
    block = encoder.backbone.blocks[1]
    part, layers = block.part, encoder.backbone.part["64"]
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    outputs = {}
    block.register_forward_hook(lambda _m, _i, out: outputs.update(new=out))
    block.inner.register_forward_hook(lambda _m, _i, out: outputs.update(old=out))
    with torch.no_grad():
        encoder(torch.randn(1, 4, 32, 32))
        old, new = outputs["old"][0], outputs["new"][0]
        assert torch.equal(new[0], old[0])
        tokens = part.a @ part.b
        w_t, w_f = layers.token_mlp, layers.feature_mlp
        for f, actual in zip(old[1:], new[1:], strict=True):
            scores = torch.stack([f @ t / math.sqrt(64) for t in tokens]).exp()
            s = scores / scores.sum()
            mixed = sum(s[m] * (w_t.weight @ tokens[m] + w_t.bias) for m in (1, 2))
            expected = f + layers.scale * (w_f.weight @ (mixed + f) + w_f.bias)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "widths"), [("vit", 1), ("swin", 4)])
def test_blocks_of_one_width_share_layers(
    make_backbone: MakeBackbone, family: str, widths: int
) -> None:
    encoder = Rein(rank=2, stem_width=0).attach(make_backbone(family))
    names = encoder.trainable_names()
    assert len([name for name in names if name.endswith(".scale")]) == widths
    assert len([name for name in names if name.endswith("part.a")]) == len(encoder.backbone.taps)


def test_rank_above_the_width_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.rank", mentions=[17, 16]):
        Rein(rank=17).attach(make_backbone("swin"))
