"""A forward pass prepares its images once and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import geotune
from geotune.backbones import base
from geotune.methods.core.encoder import recompute_blocks

MakeBackbone = Callable[..., base.Backbone]


def test_images_are_joined_and_padded_once(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = geotune.attach(make_backbone("vit"), geotune.Est(stem_width=8, min_width=8))
    calls = []
    join, pad = base.Backbone.join, base.pad_to_multiple

    def counted_join(backbone: base.Backbone, images: Any) -> torch.Tensor:
        calls.append("join")
        return join(backbone, images)

    def counted_pad(images: torch.Tensor, multiple: int) -> torch.Tensor:
        calls.append("pad")
        return pad(images, multiple)

    monkeypatch.setattr(base.Backbone, "join", counted_join)
    monkeypatch.setattr(base, "pad_to_multiple", counted_pad)
    encoder(torch.randn(1, 4, 37, 50))
    assert calls == ["join", "pad"]


def test_forward_leaves_no_attributes(family: str, make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(family).eval()

    def attributes() -> dict[str, dict[str, Any]]:
        return {name: dict(vars(module)) for name, module in backbone.named_modules()}

    before = attributes()
    with torch.no_grad():
        backbone(torch.randn(1, 4, 37, 50))
    assert attributes().keys() == before.keys()
    for name, values in attributes().items():
        assert values.keys() == before[name].keys(), name
        for key, value in values.items():
            assert value is before[name][key] or value == before[name][key], (name, key)


def test_recomputed_backward_survives_another_forward(make_backbone: MakeBackbone) -> None:
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        encoder = geotune.attach(make_backbone("vit"), geotune.Mona(bottleneck_dim=4, dropout=0))
        if recomputed:
            recompute_blocks(encoder)
        torch.manual_seed(1)
        maps = encoder(torch.randn(1, 4, 32, 64)).maps
        encoder(torch.randn(1, 4, 48, 16))  # of another size
        sum(m.square().sum() for m in maps).backward()  # type: ignore[union-attr]
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
