"""Backbones of a fixed image size process larger images in tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.blocks import from_tiles, to_tiles


@given(rows=st.integers(1, 3), columns=st.integers(1, 3), batch=st.integers(1, 2))
def test_joined_tiles_equal_the_image(rows: int, columns: int, batch: int) -> None:
    image = torch.randn(batch, 2, rows * 4, columns * 6)
    tiles = to_tiles(image, (rows, columns))
    assert tiles.shape == (batch * rows * columns, 2, 4, 6)
    assert torch.equal(from_tiles(tiles, (rows, columns)), image)


@pytest.fixture
def backbone() -> Backbone:
    """A timm model whose attention supports a single image size."""
    return geotune.backbone("timm/test_vit_relpos", bands=2, pretrained=False).eval()


def test_tiles_are_processed_independently(backbone: Backbone) -> None:
    side = backbone.size_divisor
    assert backbone.tiled and side == 160
    image = torch.randn(2, 2, 2 * side, 3 * side)
    with torch.no_grad():
        whole = backbone(image)
        alone = backbone(image[..., side:, side : 2 * side])
    assert whole.image_size == (2 * side, 3 * side)
    for tap, ours, one in zip(backbone.taps, whole.maps, alone.maps, strict=True):
        cell = int(side / tap.stride)
        assert ours.shape == (2, tap.channels, 2 * cell, 3 * cell)
        torch.testing.assert_close(ours[..., cell:, cell : 2 * cell], one, rtol=1e-4, atol=1e-5)


def test_small_images_are_padded_to_a_tile(backbone: Backbone) -> None:
    with torch.no_grad():
        features = backbone(torch.randn(1, 2, 37, 50))
    assert features.image_size == (160, 160)


@pytest.mark.parametrize("method", [geotune.Full, geotune.Lora, geotune.Est])
def test_methods_work_on_tiles(backbone: Backbone, method: type) -> None:
    encoder = geotune.attach(backbone, method())
    maps = encoder(torch.randn(1, 2, 37, 50)).maps
    assert all(m.isfinite().all() for m in maps)
