"""The order of images in memory changes no result."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch

from geotune import Est
from geotune.backbones.base import Backbone
from geotune.model import Model
from geotune.types import Normalization
from geotune.utils.memory_format import for_convolutions
from helpers.components import make_decoder


def test_images_are_channels_last_on_a_cpu() -> None:
    images = torch.randn(2, 3, 8, 8)
    ordered = for_convolutions(images)
    assert ordered.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ordered, images)
    dates = torch.randn(2, 3, 4, 8, 8)
    assert for_convolutions(dates) is dates
    assert for_convolutions(images.to("meta")).is_contiguous()


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_outputs_and_gradients_do_not_depend_on_it(
    make_backbone: Callable[..., Backbone], kind: str
) -> None:
    backbone = make_backbone(kind, bands=("a", "b"))
    encoder = Est(stem_width=4).attach(backbone)
    decoder = make_decoder("unet", encoder.taps, 2, channels=[16, 8, 8, 8])
    normalization = Normalization(("a", "b"), (100.0, -5.0), (50.0, 2.0))
    model = Model(normalization, encoder, decoder).double().train()
    images = torch.randn(2, 2, 33, 40, dtype=torch.float64) * 50  # will be padded
    results = []
    for change in (for_convolutions, lambda x: x):
        with patch("geotune.model.for_convolutions", change):
            torch.manual_seed(0)
            outputs = model(images)
        outputs.square().mean().backward()
        trained = [p for p in model.parameters() if p.grad is not None]
        results.append([outputs, *(p.grad.clone() for p in trained)])
        model.zero_grad()
    assert len(results[0]) > 3
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
